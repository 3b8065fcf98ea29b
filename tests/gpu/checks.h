// GoogleTest, or what these tests use of it, for a machine that has nothing but torch.
#pragma once

#if __has_include(<gtest/gtest.h>)
#include <gtest/gtest.h>
#else

#include <iostream>
#include <sstream>
#include <vector>

namespace small_test {

struct Case {
  const char* name;
  void (*body)();
};
inline std::vector<Case>& Cases() {
  static std::vector<Case> cases;
  return cases;
}
inline bool Register(const char* name, void (*body)()) {
  Cases().push_back({name, body});
  return true;
}

enum class Outcome { kPassed, kSkipped, kFailed };
inline Outcome& Current() {
  static Outcome outcome = Outcome::kPassed;
  return outcome;
}

// Takes what a check says after <<, and tells it at the end of the statement.
struct Note {
  Note(Outcome outcome, const char* file, int line, const char* what) {
    Current() = outcome;
    text << file << ":" << line << ": " << what << " ";
  }
  ~Note() { std::cout << text.str() << "\n"; }
  template <typename T>
  Note& operator<<(const T& more) {
    text << more;
    return *this;
  }
  std::ostringstream text;
};
// `return Return() = Note(...) << ...` leaves a void function.
struct Return {
  void operator=(const Note&) const {}
};

inline int RunAll() {
  int failed = 0;
  for (const Case& c : Cases()) {
    Current() = Outcome::kPassed;
    std::cout << "[ RUN      ] " << c.name << std::endl;
    c.body();
    const bool ok = Current() != Outcome::kFailed;
    failed += !ok;
    std::cout << (!ok                              ? "[  FAILED  ] "
                  : Current() == Outcome::kSkipped ? "[  SKIPPED ] "
                                                   : "[       OK ] ")
              << c.name << std::endl;
  }
  std::cout << Cases().size() << " tests, " << failed << " failed" << std::endl;
  return failed == 0 ? 0 : 1;
}

}  // namespace small_test

#define SMALL_NOTE(outcome, what) \
  small_test::Note(small_test::Outcome::outcome, __FILE__, __LINE__, what)
#define TEST(suite, name)                                      \
  static void suite##_##name();                                \
  static const bool suite##_##name##_registered =              \
      small_test::Register(#suite "." #name, &suite##_##name); \
  static void suite##_##name()
#define EXPECT_TRUE(condition) \
  if (condition) {             \
  } else                       \
    SMALL_NOTE(kFailed, "not so: " #condition)
#define EXPECT_FALSE(condition) EXPECT_TRUE(!(condition))
#define EXPECT_EQ(a, b) EXPECT_TRUE((a) == (b))
#define EXPECT_NE(a, b) EXPECT_TRUE((a) != (b))
#define EXPECT_LE(a, b) EXPECT_TRUE((a) <= (b))
#define EXPECT_GE(a, b) EXPECT_TRUE((a) >= (b))
#define EXPECT_GT(a, b) EXPECT_TRUE((a) > (b))
#define ASSERT_TRUE(condition) \
  if (condition) {             \
  } else                       \
    return small_test::Return() = SMALL_NOTE(kFailed, "not so: " #condition)
#define ASSERT_EQ(a, b) ASSERT_TRUE((a) == (b))
#define ASSERT_NE(a, b) ASSERT_TRUE((a) != (b))
#define GTEST_SKIP() return small_test::Return() = SMALL_NOTE(kSkipped, "skipped:")

int main() { return small_test::RunAll(); }

#endif
