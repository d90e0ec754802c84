#include "data/text/tokenizer.h"

#include "data/text/text_folder.h"

namespace colonnade {

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
    return read_text_folder(path).tokenizer;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Spelled spelled, TextStart start) const {
    TokenCache cache;
    return encode(text, spelled, start, cache).ids;
}

Encoding Tokenizer::encode(std::string_view text, Spelled spelled, TextStart start, TokenCache& cache) const {
    const Span whole{0, text.size()};
    SplitText found = split(text, std::span(&whole, 1));
    Encoding result{.ids = {}, .spelled_special = found.spelled_special};
    if (found.spelled_special && spelled == Spelled::token) found = split(text, {});
    for (const SplitPart& part : found.parts) {
        if (part.id >= 0) {
            result.ids.push_back(part.id);
            continue;
        }
        const TextStart here = part.bytes.begin == 0 ? start : TextStart::behind_token;
        const Spelled kept = spelled == Spelled::text ? Spelled::text : part.spelled;
        encode_between(text.substr(part.bytes.begin, part.bytes.size()), here, kept, result.ids, cache);
    }
    return result;
}

}  // namespace colonnade
