#include "proto/contract/architecture/parse.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

bool IsWordStart(char c) { return absl::ascii_isalpha(c) || c == '_'; }
bool IsWordPart(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '.'; }

// Recursive descent parser. Stops at the first error.
class CallParser {
 public:
  CallParser(absl::string_view field, absl::string_view text)
      : field_(field), text_(text) {}

  absl::StatusOr<CallText> ParseAll(bool bare) {
    CallText call;
    if (!IsWordStart(Peek())) {
      Fail("a module's type");
    } else {
      TakeName(call);
      if (Peek() == '(' || !bare) Arguments(call, 1);
    }
    if (status_.ok() && Peek() != '\0') Fail("the end");
    if (!status_.ok()) return status_;
    return call;
  }

 private:
  // The next character that is not a space; '\0' at the end.
  char Peek() {
    while (at_ < text_.size() && absl::ascii_isspace(text_[at_])) ++at_;
    // A NUL in the text is not the end, but no rule accepts it either.
    if (at_ < text_.size() && text_[at_] == '\0') return '\x01';
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }

  void Expect(char c) {
    if (status_.ok() && !Take(c)) Fail(absl::StrCat("`", std::string(1, c), "`"));
  }

  void Fail(absl::string_view expected) {
    if (!status_.ok()) return;
    const std::string rest =
        at_ < text_.size() ? absl::StrCat("before `", ToUtf8(text_.substr(at_), 24), "`")
                           : "where the text ends";
    status_ = InvalidField(field_, absl::StrCat("expected ", expected, " at character ",
                                                at_ + 1, ", ", rest));
  }

  bool TooDeep(int depth) {
    if (depth <= kMaxCallDepth) return false;
    if (status_.ok()) {
      status_ =
          InvalidField(field_, absl::StrCat("nested more than ", kMaxCallDepth, " deep"));
    }
    return true;
  }

  absl::string_view Word() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsWordPart(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  // A name; qualifiers such as `nn.` are dropped.
  void TakeName(CallText& call) {
    const absl::string_view word = Word();
    const size_t dot = word.rfind('.');
    call.name = std::string(dot == absl::string_view::npos ? word : word.substr(dot + 1));
    if (call.name.empty()) Fail("a type after the dot");
  }

  // `(`, arguments separated by commas, `)`.
  void Arguments(CallText& call, int depth) {
    Expect('(');
    while (status_.ok() && !Take(')')) {
      call.arguments.emplace_back();
      Argument(call.arguments.back(), depth);
      const bool by_position = call.arguments.back().name.empty();
      if (by_position && call.arguments.size() > 1 &&
          !call.arguments[call.arguments.size() - 2].name.empty()) {
        Fail("an argument with its name, as the one before it");
      }
      if (Peek() != ')' && !Take(',')) Fail("`,` or `)`");
    }
  }

  void Argument(ArgumentText& argument, int depth) {
    if (IsWordStart(Peek())) {
      const size_t begin = at_;
      const absl::string_view word = Word();
      if (Take('=')) {
        argument.name = std::string(word);
      } else {
        at_ = begin;
      }
    }
    Operand(argument, depth);
  }

  void Operand(ArgumentText& argument, int depth) {
    if (TooDeep(depth)) return;
    const char next = Peek();
    if (next == '[' || next == '{') return Group(argument, depth);
    if (!IsWordStart(next)) {
      argument.value = Literal(depth);
      return;
    }
    const size_t begin = at_;
    const absl::string_view word = Word();
    if (Peek() != '(') {
      argument.value = ScalarFromText(word).value_or(StringValue(word));
      return;
    }
    argument.kind = ArgumentText::Kind::kCall;
    argument.calls.emplace_back();
    at_ = begin;
    TakeName(argument.calls.back().call);
    Arguments(argument.calls.back().call, depth + 1);
  }

  // `[...]` of calls or values, or `{'key': call}`.
  void Group(ArgumentText& argument, int depth) {
    const bool dict = Peek() == '{';
    const char close = dict ? '}' : ']';
    ++at_;
    v1::ListValue list;
    while (status_.ok() && !Take(close)) {
      std::string key;
      if (dict) {
        if (Peek() != '\'' && Peek() != '"') return Fail("a name in quotes");
        key = Literal(depth).string_value();
        Expect(':');
      }
      ArgumentText element;
      if (status_.ok()) Operand(element, depth + 1);
      if (element.kind == ArgumentText::Kind::kCall) {
        argument.calls.push_back({key, std::move(element.calls[0].call)});
      } else if (dict || element.kind == ArgumentText::Kind::kCallList) {
        return Fail("a module before this");
      } else {
        *list.add_values() = std::move(element.value);
      }
      if (Peek() != close && !Take(',')) Fail(dict ? "`,` or `}`" : "`,` or `]`");
    }
    if (!argument.calls.empty() && list.values_size() > 0) {
      return Fail("either modules or values in the list before this");
    }
    const bool values = !dict && argument.calls.empty();
    argument.kind = values ? ArgumentText::Kind::kValue : ArgumentText::Kind::kCallList;
    if (values) *argument.value.mutable_list_value() = std::move(list);
  }

  // A number, string, tuple or word.
  v1::Value Literal(int depth) {
    const char next = Peek();
    if (next == '(') return Tuple(depth);
    if (next == '\'' || next == '"') return StringValue(Quoted());
    const size_t begin = at_;
    while (at_ < text_.size() && IsNumberPart(begin)) ++at_;
    const std::optional<v1::Value> scalar =
        ScalarFromText(text_.substr(begin, at_ - begin));
    if (scalar) return *scalar;
    at_ = begin;
    Fail("a value");
    return NoneValue();
  }

  // A sign may be at the start and after the `e` of an exponent.
  bool IsNumberPart(size_t begin) const {
    const char c = text_[at_];
    if (c != '-' && c != '+') return IsWordPart(c);
    return at_ == begin || text_[at_ - 1] == 'e' || text_[at_ - 1] == 'E';
  }

  // `(3, 3)`, `(3,)`, `()`; `(3)` is 3.
  v1::Value Tuple(int depth) {
    v1::Value tuple;
    auto* values = tuple.mutable_tuple_value();
    if (TooDeep(depth + 1)) return tuple;
    Expect('(');
    bool comma = false;
    while (status_.ok() && !Take(')')) {
      if (IsWordStart(Peek())) {
        const absl::string_view word = Word();
        *values->add_values() = ScalarFromText(word).value_or(StringValue(word));
      } else {
        *values->add_values() = Literal(depth + 1);
      }
      if (Peek() == ')') continue;
      comma = true;
      if (status_.ok() && !Take(',')) Fail("`,` or `)`");
    }
    if (values->values_size() == 1 && !comma) {
      v1::Value single = values->values(0);
      return single;
    }
    return tuple;
  }

  std::string Quoted() {
    const char quote = text_[at_++];
    std::string out;
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      out += text_[at_++];
    }
    if (at_ == text_.size()) {
      Fail(absl::StrCat("a closing ", std::string(1, quote)));
    } else {
      ++at_;
    }
    return out;
  }

  const absl::string_view field_;
  const absl::string_view text_;
  size_t at_ = 0;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<CallText> ParseCall(absl::string_view field, absl::string_view text,
                                   bool bare) {
  if (text.size() > kMaxCallBytes) {
    return InvalidField(field, absl::StrCat("longer than ", kMaxCallBytes, " bytes"));
  }
  if (!IsUtf8(text)) return InvalidField(field, "is not UTF-8");
  return CallParser(field, text).ParseAll(bare);
}

}  // namespace modelstore
