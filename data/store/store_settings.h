#pragma once
// The inputs that the content of a store depends on, which its key is a hash of (data/store/build_store.h).

#include <string>
#include <vector>

#include "data/store/build_store.h"
#include "engine/io/json.h"

namespace colonnade {

/// The files of each data set.
using FileLists = std::vector<std::vector<std::string>>;

/// Every such input, with the hash of every file. A data set's weight is not among them: it applies to the finished store.
Json store_settings(const StoreRequest& request, const FileLists& files);

/// The options for a data set, with its own chat template if it has one.
EncodeOptions encode_options(const StoreRequest& request, size_t dataset);

}  // namespace colonnade
