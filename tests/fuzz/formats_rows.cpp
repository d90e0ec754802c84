// Rows: JSON lines, JSON, compressed files, Parquet, and what a tokenizer and a chat template make of them.

#include "data/rows/rows.h"
#include "data/samples/encode.h"
#include "data/store/score_table.h"
#include "data/store/teacher_file.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "tests/fuzz/formats.h"
#include "tests/support/file_test.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

const std::string texts[] = {
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": false}], "tools": []}
{"messages": [{"role": "user", "content": "a", "weight": 0.25}, {"role": "assistant", "content": "b", "weight": 2}]}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "c"}]}, {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"x\": [1]}"}}]}, {"role": "tool", "content": "1"}, {"role": "assistant", "content": "<think>\nq\n</think>\n\nd"}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}]}
)",
    R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "o"}, {"from": "gpt", "value": "e"}], "system": "s"}
)",
    R"({"instruction": "i", "input": "j", "output": "o", "system": "s", "history": [["q", "a"]]}
{"instruction": "i", "output": "o"}
)",
    R"({"prompt": "p", "completion": "c"}
{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
)",
    "{\"text\": \"one </s> <|im_end|> two\"}\n\n{\"text\": \"\\ud83d\\ude00\", \"id\": NaN}\n",
    R"({"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]}
{"input_ids": [4, 5], "loss_mask": [0, 1]}
{"input_ids": [4, 5], "token_weights": [0, 1e-9], "weight": 0.5}
)",
    R"({"prompt": "p", "completions": ["a", "b"], "scores": [1, null]}
{"prompt": [{"role": "user", "content": "a"}], "completions": ["a", "b"], "scores": [0, 1e3], "weight": 2}
)",
    "[{\"text\": \"a\"},\n {\"text\": \"b\"}]\n",
    "{\n \"question\": \"a\",\n \"answer\": \"b\"\n}\n{\n \"question\": \"c\",\n \"answer\": \"d\"\n}\n"};

const std::string preferences[] = {
    R"({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 0.5, "score": NaN}
)",
    R"({"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}
)",
    R"({"messages": [{"role": "user", "content": "a"}], "chosen": {"role": "assistant", "content": "b"}, "rejected": {"role": "assistant", "content": "c"}}
)",
    R"({"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}, "system": "s"}
)",
    R"({"instruction": "i", "input": "j", "chosen": "b", "rejected": "c"}
)",
    R"({"prompt": "p", "completions": ["a", "b", "c"]}
{"prompt": "p", "completions": ["a", "b", "c"], "pairs": [[0, 1], {"better": 2, "worse": 0, "margin": 1, "weight": 0.5}], "weight": 2}
)",
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "rejected": "c"}, {"role": "user", "content": "d"}, {"role": "assistant", "content": "e", "rejected": ["f", {"role": "assistant", "content": "g"}], "weight": 0.5}]}
)",
    R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "rejected": {"from": "gpt", "value": "c"}}]}
)",
    R"({"prompt": "a", "initial_reason_steps": "Step 1:", "chosen": " b", "rejected": " c "}
)",
    R"({"prompt_input_ids": [1, 2], "chosen_input_ids": [3], "rejected_input_ids": [4, 5], "chosen_labels": [3]}
)"};

const std::string scored[] = {
    R"({"prompt": "p", "completions": ["a", "b"], "rewards": [1, null]}
{"prompt": "p", "completions": ["a", "b"], "rewards": {"f": [1, 0.5], "g": [true, NaN]}, "group": 7, "truncated": [0, true]}
)",
    R"({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}, {"role": "tool", "content": "c"}, {"role": "assistant", "content": "d"}], "reward": [1, -2.5], "finish_reason": "length", "tools": []}
)",
    R"({"prompt_ids": [1, 2], "completion_ids": [3, 4], "completion_mask": [1, 0], "advantages": [1, 0], "old_per_token_logps": [-1, -2], "ref_per_token_logps": [null]}
)",
    R"({"input_ids": [1, 2, 3], "completion_mask": [0, 1, 1], "old_log_probs": [0, -1, 1e-9], "advantage": 1e30, "group_id": "g"}
)",
    R"({"tokens": [1, 2, 3], "response_length": 2, "loss_mask": [0, 1], "rollout_log_probs": [-1e38, 0], "reward": {"f": 1}, "status": "truncated"}
)"};

const std::string labelled[] = {
    R"({"prompt": "p", "completion": "c", "label": true}
)",
    R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "kto_tag": false}
)",
    R"({"instruction": "i", "output": "o", "label": 1}
)",
    R"({"prompt_ids": [1, 2], "completion_ids": [3, 4], "label": 0}
)"};

const std::string taught[] = {
    R"({"prompt_ids": [1, 2], "completion_ids": [3, 4], "teacher_ids": [[3, 7], [4, -1]], "teacher_log_probs": [[-0.5, -1.25], [-1e-9, 0]]}
)",
    R"({"input_ids": [0, 5, 6, 7], "attention_mask": [0, 1, 1, 1], "logprobs": [null, null, {"6": -1, "token_id:9": {"logprob": -Infinity}}, {}], "weight": 2}
)",
    R"({"prompt": "p", "completion": "c", "logprobs": [[{"token": "token_id:1", "logprob": -1}], {"top_logprobs": [{"token_id": 2, "logprob": -3}]}]}
)",
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "logprobs": [{"1": -1}, null]}
)"};

/// Rows of token ids with a teacher's lists.
std::string hdf5_rows(const std::string& scratch) {
    const std::string path = scratch + "/rows.h5";
    std::filesystem::remove(path);
    std::vector<int64_t> begins = {0, 2, 3};
    std::vector<int32_t> ids = {5, 6, 7}, lists = {0, -1, 6, 2, 0, -1};
    std::vector<float> log_probs = {0, 0, -0.5f, -2, 0, 0};
    Hdf5Writer file(path);
    file.write("row_begins", view_of(begins));
    file.write("input_ids", view_of(ids));
    file.write("teacher_ids", Tensor(lists.data(), DType::i32, {3, 2}));
    file.write("teacher_log_probs", Tensor(log_probs.data(), DType::f32, {3, 2}));
    file.close();
    return slurp(path);
}

Format teacher_format(const std::string& scratch) {
    TeacherLists lists;
    for (const int32_t count : {2, 0, 3}) {
        for (int32_t i = 0; i < count; ++i) lists.add(7 * i, -1.0f - static_cast<float>(i));
        lists.end_list();
    }
    const std::string path = scratch + "/written.teacher";
    TeacherFileWriter writer(path, "key");
    std::vector<uint32_t> words;
    TeacherPlace place = append_words(lists, words);
    place.begin += writer.words();
    writer.append(words);
    const int64_t total = writer.words();
    writer.commit();
    return {.file = "store.teacher", .seeds = {slurp(path)}, .read = [=](const auto&, const auto& file) {
                (void)TeacherFile(file, "key", total, 100).read(place);
            }};
}

void read_rows(const std::string& file, RowKind kind) {
    static const Encoder encoder(small_tokenizer({.special = {"<|im_start|>", "<|im_end|>"}}),
                                 {.allow_spelled_out_markers = true, .excess_length = ExcessLength::truncate});
    TokenCache cache;
    RowReader reader({.path = file}, kind);
    int rows = 0;
    ScoreTable scores;
    for (Row row; rows < 100 && reader.next(row); ++rows) {
        if (kind == RowKind::texts || kind == RowKind::preferences) {
            (void)encoder.encode(row, file, cache);
            continue;
        }
        for (const Row& answer : row.answers) {
            const Encoded made = encoder.encode_answer(answer, file, cache);
            if (made.notes.dropped()) continue;
            check_sample(made.sample);
            if (kind == RowKind::scored) scores.add(*answer.score, 0, file);
        }
    }
    if (kind == RowKind::scored) (void)scores.finish({}, 1);
}

Format rows_format(const std::string& name, std::vector<std::string> seeds, RowKind kind = RowKind::texts) {
    return {.file = name, .seeds = std::move(seeds), .read = [kind](const auto&, const auto& file) {
                read_rows(file, kind);
            }};
}

Format compressed_format(const std::string& name, const Envelope& envelope) {
    std::vector<std::string> seeds;
    for (const std::string& text : texts) seeds.push_back(envelope.seal(text, ""));
    Format format = rows_format(name, seeds);
    format.structure = mutation_within(envelope, json_lines_mutation());
    return format;
}

Format card_format() {
    return {
        .file = "README.md",
        .seeds =
            {"---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
             "    path: data/train-*\n  - split: test\n    path: [\"t/**\", ./u]\n- config_name: b\n---\n",
             "---\nconfigs:\n- {config_name: a, data_dir: in, default: true, data_files: {val: v, dev: [w]}}\n---\n"},
        .read =
            [](const auto&, const auto& file) {
                for (const CardFiles& part : read_data_card(read_file(file), file))
                    (void)card_means(part.pattern, "data/train-0.jsonl");
            },
        .words = {"configs:", "data_files:", "data_dir:", "default: true", "- ", "\n  ", "[", "]", "{", "}", "**/",
                  "&a ", "*a", "!!map"}};
}

}  // namespace

std::vector<NamedFormat> row_file_formats() {
    const auto json_rows = [](auto& seeds, RowKind kind) {
        Format format = rows_format("rows.jsonl", {std::begin(seeds), std::end(seeds)}, kind);
        format.structure = json_lines_mutation();
        format.words = {"{",  "}",    "[",   "]",         ",",   ":",       "\"",
                        "\n", "null", "NaN", "-Infinity", "\\u", "\\ud800", "1e999"};
        return format;
    };
    return {
        {"rows", [=](const auto&) { return json_rows(texts, RowKind::texts); }},
        {"preferences", [=](const auto&) { return json_rows(preferences, RowKind::preferences); }},
        {"scored", [=](const auto&) { return json_rows(scored, RowKind::scored); }},
        {"labelled", [=](const auto&) { return json_rows(labelled, RowKind::labelled); }},
        {"taught", [=](const auto&) { return json_rows(taught, RowKind::taught); }},
        {"hdf5_rows",
         [](const auto& scratch) { return rows_format("rows.h5", {hdf5_rows(scratch)}, RowKind::taught); }},
        {"teacher", [](const auto& scratch) { return teacher_format(scratch); }},
        {"gzip", [](const auto&) { return compressed_format("rows.jsonl.gz", gzip_content()); }},
        {"zstd", [](const auto&) { return compressed_format("rows.jsonl.zst", zstd_content()); }},
        {"data_card", [](const auto&) { return card_format(); }},
        {"parquet", [](const auto&) { return rows_format("rows.parquet", golden_contents("parquet", ".parquet")); }},
    };
}

}  // namespace colonnade
