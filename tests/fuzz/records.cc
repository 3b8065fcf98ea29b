// Trees of values and manifest parts, as clients send them, and the records that the
// store writes for itself.
#include "modelstore/storage/v1/records.pb.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/dtype.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/value_check.h"
#include "storage/record_codec.h"
#include "storage/save/manifest_check.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

namespace records = storage::v1;

std::vector<std::string> Values() {
  v1::Value number, text, tensor;
  number.set_int_value(-1);
  text.set_string_value("a/b");
  tensor.set_tensor_value("layer.weight");
  v1::Value list;
  for (const v1::Value* item : {&number, &text, &tensor}) {
    *list.mutable_list_value()->add_values() = *item;
  }
  v1::Value dict;
  for (const v1::Value* key : {&number, &text}) {
    auto* entry = dict.mutable_dict_value()->add_entries();
    *entry->mutable_key() = *key;
    *entry->mutable_value() = list;
  }
  std::vector<std::string> seeds = {""};
  for (const v1::Value* value : {&number, &text, &tensor, &list, &dict}) {
    seeds.push_back(value->SerializeAsString());
  }
  return seeds;
}

bool RunValue(absl::string_view input) {
  v1::Value value;
  if (!ParseMessage(input, &value)) return false;
  std::vector<NamedTensor> tensors;
  const absl::Status status =
      CheckValue("field", "section \"s\"", value, kMaxValueDepth, &tensors);
  for (const NamedTensor& tensor : tensors) FUZZ_REQUIRE(tensor.place.size() <= 128);
  KeyElement(value);
  if (!status.ok()) {
    RequireRefusal(status, "field: ");
    return false;
  }
  // A tree without tensors can be had where none may be named.
  FUZZ_REQUIRE(CheckValue("field", "", value, kMaxValueDepth, nullptr).ok() ==
               tensors.empty());
  v1::Value read;
  FUZZ_REQUIRE(ParseMessage(SerializeDeterministic(value), &read));
  return true;
}

std::vector<std::string> ManifestParts() {
  records::ManifestPage page;
  auto* tensor = page.add_tensors();
  tensor->set_key("layer.weight");
  tensor->set_dtype(static_cast<uint32_t>(DType::kFloat32));
  tensor->add_shape(4);
  tensor->add_shape(2);
  tensor->add_pieces()->set_digests(std::string(16, 'd'));
  auto* sliced = page.add_tensors();
  *sliced = *tensor;
  sliced->set_key("layer.bias");
  auto* piece = sliced->mutable_pieces(0);
  for (const int64_t offset : {2, 0}) piece->add_offset(offset);
  for (const int64_t size : {2, 2}) piece->add_size(size);
  piece->set_chunk_size_bytes(8);
  piece->set_digests(std::string(32, 'e'));
  auto* tied = page.add_tensors();
  *tied = *tensor;
  tied->set_key("head");
  tied->clear_pieces();
  tied->set_tied_to("layer.weight");
  auto* section = page.add_sections();
  section->set_name("extra");
  section->set_value("opaque");
  auto* attachment = page.add_attachments();
  attachment->set_name("notes.txt");
  attachment->set_data("text");
  return {page.SerializeAsString(), tensor->SerializeAsString(), ""};
}

bool RunManifestPart(absl::string_view input) {
  records::ManifestPage part;
  if (!ParseMessage(input, &part)) return false;
  storage::ManifestTotals totals;
  const absl::Status status = CheckManifestPart(
      DigestAlgorithm::kXxh3_128, storage::DigestsWanted::kAllOrNone, part, totals);
  if (!status.ok()) {
    if (!absl::IsUnimplemented(status)) RequireRefusal(status, "manifest");
    return false;
  }
  FUZZ_REQUIRE(totals.tensors == part.tensors_size());
  FUZZ_REQUIRE(totals.bytes >= 0 && totals.attachment_bytes >= 0);
  // What is in stored form is left as it is.
  const std::string stored = SerializeDeterministic(part);
  storage::ManifestTotals again;
  FUZZ_REQUIRE(CheckManifestPart(DigestAlgorithm::kXxh3_128,
                                 storage::DigestsWanted::kAllOrNone, part, again)
                   .ok());
  FUZZ_REQUIRE(SerializeDeterministic(part) == stored);
  FUZZ_REQUIRE(again.bytes == totals.bytes);
  return true;
}

template <typename Record>
bool DecodesToItself(absl::string_view bytes) {
  const absl::StatusOr<Record> record = storage::Decode<Record>(bytes);
  if (!record.ok()) {
    FUZZ_REQUIRE(absl::IsDataLoss(record.status()));
    return false;
  }
  const std::string encoded = storage::Encode(*record);
  const absl::StatusOr<Record> again = storage::Decode<Record>(encoded);
  FUZZ_REQUIRE(again.ok() && storage::Encode(*again) == encoded);
  return true;
}

// By the first byte of an input, modulo their number.
constexpr bool (*kRecords[])(absl::string_view) = {
    DecodesToItself<records::ModelRecord>,
    DecodesToItself<records::CheckpointRecord>,
    DecodesToItself<records::UploadRecord>,
    DecodesToItself<records::SealedPackRecord>,
    DecodesToItself<records::DamagedPackRecord>,
    DecodesToItself<records::PackRecord>,
    DecodesToItself<records::EventRecord>,
    DecodesToItself<records::ManifestPage>};

std::vector<std::string> Records() {
  records::ModelRecord model;
  model.set_uid(std::string(32, 'a'));
  model.set_model_id("iris");
  (*model.mutable_labels())["stage"] = "production";
  (*model.mutable_aliases())["best"] = 3;
  records::CheckpointRecord checkpoint;
  checkpoint.set_version(3);
  checkpoint.mutable_metadata()->set_loss(0.5);
  (*checkpoint.mutable_metadata()->mutable_metrics())["top-1"] = 76;
  checkpoint.add_packs(7);
  records::UploadRecord upload;
  upload.set_upload_id(std::string(32, 'b'));
  upload.add_committed_tensor_counts(4);
  records::SealedPackRecord sealed;
  sealed.set_pack(7);
  sealed.set_digests(std::string(32, 'c'));
  sealed.add_sizes(9);
  records::DamagedPackRecord damaged;
  damaged.add_sequences(1);
  damaged.add_copies()->set_sequence(1);
  records::PackRecord pack;
  pack.mutable_place()->set_shift(5);
  records::EventRecord event;
  event.mutable_alias_moved()->set_alias("best");
  const std::string bytes[] = {
      model.SerializeAsString(),   checkpoint.SerializeAsString(),
      upload.SerializeAsString(),  sealed.SerializeAsString(),
      damaged.SerializeAsString(), pack.SerializeAsString(),
      event.SerializeAsString(),   ManifestParts().front()};
  std::vector<std::string> seeds;
  for (size_t i = 0; i < std::size(bytes); ++i) {
    seeds.push_back(static_cast<char>(i) + bytes[i]);
  }
  return seeds;
}

bool RunRecord(absl::string_view input) {
  if (input.empty()) return false;
  return kRecords[static_cast<uint8_t>(input[0]) % std::size(kRecords)](input.substr(1));
}

}  // namespace

std::vector<Target> RecordTargets() {
  return {{"manifest_part", ManifestParts, RunManifestPart},
          {"record", Records, RunRecord},
          {"value", Values, RunValue}};
}

}  // namespace modelstore::fuzz
