#pragma once
// own_file: which symbolic links are followed in a folder that may come from a stranger, such as a model's. Export
// copies files of that folder into one that is meant for publishing; a link to a private file must not get there.
//
// A link is followed if its target
//     lies in the folder itself,
//     has a hash for a name (30 lower-case hexadecimal digits or more), as in the blobs of the Hugging Face cache and
//     in other content-addressed stores, or
//     has the same name as the link, as in folders that share a tokenizer.json or weights with another model.

#include <string>

namespace colonnade {

/// Returns `file`, a path that begins with `folder`. Throws Exit::data if it is a link that is not followed, also
/// because a folder on the way is one. A file that does not exist is none.
const std::string& own_file(const std::string& folder, const std::string& file);

}  // namespace colonnade
