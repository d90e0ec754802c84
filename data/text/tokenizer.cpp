#include "data/text/tokenizer.h"

#include "data/text/text_folder.h"

namespace colonnade {

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
    return read_text_folder(path).tokenizer;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Spelled spelled, TextStart start) const {
    TokenCache cache;
    std::vector<int32_t> ids;
    const Span whole{0, text.size()};
    for (const SplitPart& part : split(text, std::span(&whole, spelled == Spelled::text ? 1 : 0)).parts) {
        if (part.id >= 0) {
            ids.push_back(part.id);
            continue;
        }
        const TextStart here = part.bytes.begin == 0 ? start : TextStart::behind_token;
        const Spelled kept = spelled == Spelled::text ? Spelled::text : part.spelled;
        encode_between(text.substr(part.bytes.begin, part.bytes.size()), here, kept, ids, cache);
    }
    return ids;
}

}  // namespace colonnade
