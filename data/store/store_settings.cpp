#include "data/store/store_settings.h"

#include "engine/io/sha256.h"

namespace colonnade {
namespace {

std::string identity_of(const std::shared_ptr<const ChatTemplate>& chat_template) {
    return chat_template ? chat_template->identity() : "chatml";
}

Json identity_of(const Tokenizer* tokenizer) {
    if (!tokenizer) return "none";
    const auto& [bos, eos, pad, unk] = tokenizer->roles();
    return {tokenizer->content_hash(), bos.value_or(-1), eos.value_or(-1),
            pad.value_or(-1),          unk.value_or(-1), tokenizer->document_prefix()};
}

/// A limit that is infinite becomes null.
Json settings_of(const RewardSettings& rewards) {
    const auto& [advantages, weights] = rewards;
    const auto& [scale, aggregation, clip_min, clip_max, whole_set] = advantages;
    return {{"scale", static_cast<int>(scale)},
            {"aggregation", static_cast<int>(aggregation)},
            {"clip_min", clip_min},
            {"clip_max", clip_max},
            {"weights", weights},
            {"whole_set", static_cast<int>(whole_set)}};
}

}  // namespace

EncodeOptions encode_options(const StoreRequest& request, size_t dataset) {
    EncodeOptions options = request.encode;
    if (dataset < request.chat_templates.size() && request.chat_templates[dataset])
        options.chat_template = request.chat_templates[dataset];
    return options;
}

// The structured bindings fail to compile if a field is added, so that none can be forgotten here.
Json store_settings(const StoreRequest& request, const FileLists& files) {
    Json datasets = Json::array();
    for (size_t i = 0; i < files.size(); ++i) {
        const auto& [path, type, columns, ignore_columns, split, max_samples, weight, template_name, keep] =
            request.datasets[i];
        Json hashes = Json::array();
        for (const std::string& file : files[i]) hashes.push_back({{"path", file}, {"sha256", sha256_file(file)}});
        datasets.push_back({{"path", path},
                            {"type", type},
                            {"columns", columns},
                            {"ignore_columns", ignore_columns},
                            {"split", split},
                            {"max_samples", max_samples},
                            {"keep", keep},
                            {"chat_template", identity_of(encode_options(request, i).chat_template)},
                            {"files", hashes}});
    }
    const auto& [chat_template, end_ids, allow_spelled_out_markers, max_length, train_on_prompt, roles_to_train,
                 train_on_thinking, train_on_tool_calls, special_tokens_in_text, train_on_eos, mask_history, history,
                 add_bos, add_eos, excess_length, vocab_size, sample_length, ranked_pairs, mask_truncated] =
        request.encode;
    return {{"store_format", TokenStore::format_version},
            {"rows", static_cast<int>(request.rows)},
            {"datasets", datasets},
            {"tokenizer", identity_of(request.tokenizer.get())},
            {"end_ids", end_ids},
            {"allow_spelled_out_markers", allow_spelled_out_markers},
            {"max_length", max_length},
            {"train_on_prompt", train_on_prompt},
            {"roles_to_train", roles_to_train},
            {"train_on_thinking", train_on_thinking},
            {"train_on_tool_calls", train_on_tool_calls},
            {"special_tokens_in_text", static_cast<int>(special_tokens_in_text)},
            {"train_on_eos", static_cast<int>(train_on_eos)},
            {"mask_history", mask_history},
            {"history", static_cast<int>(history)},
            {"add_bos", add_bos},
            {"add_eos", add_eos},
            {"excess_length", static_cast<int>(excess_length)},
            {"vocab_size", vocab_size},
            {"sample_length", sample_length},
            {"ranked_pairs", static_cast<int>(ranked_pairs)},
            {"mask_truncated", mask_truncated},
            {"rewards", settings_of(request.rewards)}};
}

}  // namespace colonnade
