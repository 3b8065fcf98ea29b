#include "storage/rocksdb/compaction_guard.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/db.h"

namespace modelstore::storage::rocks {

void CompactionGuard::StopFailing(DbGate::Use& use) {
  if (!pending_.exchange(false)) return;
  std::set<std::string> failed;
  {
    MutexLock lock(mutex_);
    failed.swap(failed_);
  }
  for (rocksdb::ColumnFamilyHandle* family : use->families) {
    if (failed.count(family->GetName()) == 0) continue;
    const rocksdb::Status s =
        use->db->SetOptions(family, {{"disable_auto_compactions", "true"}});
    if (s.ok()) continue;
    // It fails again, and so comes back here.
    folder_->Report(Listener::Severity::kWarning,
                    absl::StrCat("compactions of `", family->GetName(),
                                 "` cannot be stopped: ", s.ToString()));
  }
}

void CompactionGuard::OnBackgroundError(rocksdb::BackgroundErrorReason reason,
                                        rocksdb::Status* error) {
  if (reason == rocksdb::BackgroundErrorReason::kCompaction && error->IsCorruption()) {
    *error = rocksdb::Status::OK();
  }
}

void CompactionGuard::OnCompactionCompleted(rocksdb::DB*,
                                            const rocksdb::CompactionJobInfo& info) {
  if (!info.status.IsCorruption()) return;
  bool first = false;
  {
    MutexLock lock(mutex_);
    failed_.insert(info.cf_name);
    first = reported_.insert(info.cf_name).second;
  }
  pending_ = true;
  if (!first) return;
  folder_->Report(
      Listener::Severity::kError,
      absl::StrCat("a table of the catalog is damaged: ", info.status.ToString(),
                   "; rows that it lost are DATA_LOSS when they are read, saves go on, "
                   "and tables of `",
                   info.cf_name,
                   "` are not compacted any more; VerifyCheckpoint names the damaged "
                   "checkpoints: delete them, or restore the store from a backup"));
}

}  // namespace modelstore::storage::rocks
