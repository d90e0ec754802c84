#include "data/text/gguf_pre_tokenizers.h"

#include "data/text/split_pattern.h"

namespace colonnade {
namespace {

using Extra = GgufPreTokenizer::Extra;

const GgufPreTokenizer pre_tokenizers[] = {
    {.name = "llama-bpe", .pattern = llama3_pattern, .ignore_merges = true, .bos = true},
    {.name = "llama3", .pattern = llama3_pattern, .ignore_merges = true, .bos = true},
    {.name = "llama-v3", .pattern = llama3_pattern, .ignore_merges = true, .bos = true},
    {.name = "falcon3", .pattern = llama3_pattern, .ignore_merges = true},
    {.name = "pixtral", .pattern = llama3_pattern, .ignore_merges = true},
    {.name = "smaug-bpe", .pattern = llama3_pattern},
    {.name = "dbrx", .pattern = llama3_pattern},
    {.name = "tekken", .pattern = tekken_pattern, .ignore_merges = true, .bos = true},
    {.name = "qwen2", .pattern = qwen2_pattern, .extra = Extra::nfc},
    {.name = "deepseek-r1-qwen", .pattern = qwen2_pattern},
    {.name = "megrez", .pattern = qwen2_pattern, .extra = Extra::nfc},
    {.name = "qwen35", .pattern = qwen3_5_pattern, .extra = Extra::nfc},
    {.name = "gpt-4o", .pattern = gpt4o_pattern},
    {.name = "smollm", .pattern = gpt2_pattern, .extra = Extra::single_digits},
    {.name = "starcoder", .pattern = gpt2_pattern, .extra = Extra::single_digits},
    {.name = "minerva-7b", .pattern = gpt2_pattern, .extra = Extra::single_digits},
    {.name = "gpt-2", .pattern = gpt2_pattern},
};

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() {
    return pre_tokenizers;
}

Json pre_tokenizer_json(const GgufPreTokenizer& pre) {
    Json steps = Json::array();
    if (pre.extra == Extra::single_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    const bool gpt2 = pre.pattern == gpt2_pattern;  // which ByteLevel knows itself
    if (!gpt2)
        steps.push_back({{"type", "Split"},
                         {"pattern", {{"Regex", std::string(pre.pattern)}}},
                         {"behavior", "Isolated"},
                         {"invert", false}});
    steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2}});
    return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

}  // namespace colonnade
