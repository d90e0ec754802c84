#include "engine/ranks/communicator.h"

namespace colonnade {

bool built_with_nccl() {
    return false;
}

std::string nccl_version() {
    return "";
}

std::unique_ptr<Communicator> join_by_nccl(const Ranks&, Gpu&, bool) {
    fail(Exit::config,
         "several ranks on GPUs need NCCL, and this build has none (nccl.h was not found when it was configured): "
         "install libnccl-dev or set NCCL_HOME and build again, or use device: cpu");
}

}  // namespace colonnade
