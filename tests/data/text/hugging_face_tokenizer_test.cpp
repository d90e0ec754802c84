#include "data/text/hugging_face_tokenizer.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "engine/io/files.h"
#include "tests/support/base64.h"
#include "tests/support/expect_error.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

/// Compares with one line of golden values: ids without and with the post-processor, the text decoded from the ids with
/// and without special tokens. "special" and "skip" are left out where they equal "ids" and "text".
bool equals(const HuggingFaceTokenizer& tokenizer, const Json& line, TokenCache& cache) {
    const std::string text = from_base64(line["b64"].get_ref<const std::string&>());
    const auto ids = line["ids"].get<std::vector<int32_t>>();
    const auto special = line.contains("special") ? line["special"].get<std::vector<int32_t>>() : ids;
    const auto decoded = line["text"].get<std::string>();
    return tokenizer.encode_document(text, cache, PostProcess::no) == ids &&
           tokenizer.encode_document(text, cache, PostProcess::yes) == special &&
           tokenizer.decode(ids, SpecialTokens::keep) == decoded &&
           tokenizer.decode(ids, SpecialTokens::skip) == line.value("skip", decoded);
}

struct Lines {
    int equal = 0, different = 0;
};
/// Compares the lines of a folder's golden.jsonl, but for those that the package refuses.
Lines check_folder(const fs::path& folder) {
    const auto tokenizer = HuggingFaceTokenizer::load((folder / "tokenizer.json").string());
    TokenCache cache;
    Lines lines;
    std::ifstream file(folder / "golden.jsonl");
    for (std::string text; std::getline(file, text);) {
        const Json line = parse_json(text, folder.string());
        if (line.contains("error")) continue;
        const bool equal = equals(*tokenizer, line, cache);
        ++(equal ? lines.equal : lines.different);
        EXPECT_TRUE(equal) << folder << ": " << line["name"];
    }
    return lines;
}

TEST(HuggingFaceTokenizer, ids_and_texts_are_those_of_the_tokenizers_package) {
    int folders = 0;
    for (const auto& entry : fs::directory_iterator(golden_file("tokenizers"))) {
        EXPECT_GT(check_folder(entry.path()).equal, 40);
        ++folders;
    }
    EXPECT_EQ(folders, 29);
}

Json llama3() {
    return read_json_file(golden_file("tokenizers/llama3/tokenizer.json"));
}
std::string refusal(const Json& json, const std::string& part) {
    return expect_error(Exit::data, part, [&] { HuggingFaceTokenizer(json, "tokenizer.json"); });
}

TEST(HuggingFaceTokenizer, special_tokens_in_text_can_stay_text) {
    const HuggingFaceTokenizer tokenizer(llama3(), "tokenizer.json");
    TokenCache cache;
    const std::string text = "<s>a<think>";
    const int32_t special = *tokenizer.piece_id("<s>"), plain = *tokenizer.piece_id("<think>");
    EXPECT_EQ(tokenizer.encode_document(text, cache, PostProcess::no).front(), special);
    const std::vector<int32_t> ids = tokenizer.encode(text, Spelled::text, TextStart::document, cache).ids;
    EXPECT_EQ(std::count(ids.begin(), ids.end(), special), 0);
    EXPECT_EQ(ids.back(), plain) << "a token that is not special is found always";
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::keep), text);
    EXPECT_TRUE(tokenizer.is_special(special) && !tokenizer.is_special(plain));
}

TEST(HuggingFaceTokenizer, long_runs_are_encoded_in_time) {
    const HuggingFaceTokenizer tokenizer(llama3(), "tokenizer.json");
    TokenCache cache;
    for (const char c : {'a', ' ', '=', '\n'}) {
        const std::string text(400000, c);
        EXPECT_EQ(tokenizer.decode(tokenizer.encode_document(text, cache, PostProcess::no), SpecialTokens::keep), text);
    }
}

TEST(HuggingFaceTokenizer, a_cache_does_not_change_ids) {
    const HuggingFaceTokenizer tokenizer(llama3(), "tokenizer.json");
    TokenCache warm;
    std::string text;
    for (int i = 0; i < 3000; ++i) {
        text = fmt::format("{} quick{}brown {:x} foxes and a very long word: {}{}", text.substr(0, 20), i, i * 7919,
                           i % 7, std::string(static_cast<size_t>(i % 90), 'q'));
        if (i % 50 == 0) {
            TokenCache fresh;
            ASSERT_EQ(tokenizer.encode_document(text, warm, PostProcess::no),
                      tokenizer.encode_document(text, fresh, PostProcess::no))
                << text;
        }
        ASSERT_EQ(tokenizer.decode(tokenizer.encode_document(text, warm, PostProcess::no), SpecialTokens::keep), text);
    }
}

TEST(HuggingFaceTokenizer, what_is_not_supported_is_refused_by_name) {
    struct Case {
        const char *section, *value, *part;
    };
    const Case cases[] = {
        {"/model/type", R"("Odd")", "model: Odd is not supported"},
        {"/model/dropout", "0.1", "dropout 0.1"},
        {"/normalizer", R"({"type": "Precompiled"})", "precompiled_charsmap: expected a text"},
        {"/normalizer", R"({"type": "Replace", "pattern": {"Regex": "(x"}, "content": ""})",
         "the pattern '(x': not supported, at byte 2: a '(' without ')'"},
        {"/pre_tokenizer", R"({"type": "UnicodeScripts"})", "pre_tokenizer: UnicodeScripts is not supported"},
        {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "(x"}, "behavior": "Isolated"})",
         "the pattern '(x': not supported, at byte 2: a '(' without ')'"},
        {"/normalizer", R"({"type": "Odd"})", "normalizer: Odd is not supported"},
        {"/normalizer", R"({"type": "Replace", "pattern": {"Regex": "(x)\\1"}, "content": ""})",
         "Replace: the pattern '(x)\\1'"},
        {"/decoder", R"({"type": "Replace", "pattern": {"Regex": "\\X"}, "content": ""})",
         "decoder: Replace: the pattern"},
        {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "\\Gx"}, "behavior": "Isolated"})",
         "Split: the pattern '\\Gx': not supported"},
        {"/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Odd"})", "behavior 'Odd'"},
        {"/post_processor", R"({"type": "Odd"})", "post_processor: Odd is not supported"},
        {"/decoder", R"({"type": "Odd"})", "decoder: Odd is not supported"},
    };
    for (const Case& c : cases) {
        Json json = llama3();
        json[Json::json_pointer(c.section)] = Json::parse(c.value);
        refusal(json, c.part);
    }
}

TEST(HuggingFaceTokenizer, damaged_files_are_refused) {
    struct Case {
        const char *section, *value, *part;
    };
    const Case cases[] = {
        {"", "[]", "not a tokenizer.json"},
        {"", "{}", "not a tokenizer.json"},
        {"/version", R"("2.0")", "version \"2.0\""},
        {"/model", "7", "model: expected an object"},
        {"/model/vocab", "[]", "model.vocab: expected an object"},
        {"/model/vocab/a", "-1", "piece 'a': expected an id"},
        {"/model/vocab/a", "99999999999", "piece 'a': expected an id"},
        {"/model/vocab/a", "0", "two pieces have id 0"},
        {"/model/merges", "{}", "model.merges: expected an array"},
        {"/model/merges/0", R"("a  b")", "expected two pieces and one space"},
        {"/model/merges/0", R"(["a", "no such"])", "is not in the vocabulary"},
        {"/model/merges/0", "5", "expected two pieces, found 5"},
        {"/model/unk_token", R"("no such")", "unk_token 'no such'"},
        {"/added_tokens", "3", "added_tokens: expected an array"},
        {"/added_tokens/0/id", "77777", "the tokenizers package would use"},
        {"/added_tokens/0/content", "1", "content: expected a text"},
        {"/added_tokens/0/lstrip", "1", "lstrip: expected true or false"},
        {"/post_processor", R"({"type": "TemplateProcessing", "single": []})", "expected one Sequence, found 0"},
        {"/post_processor", R"({"type": "BertProcessing", "cls": ["a", 99999999], "sep": ["b", 0]})", "cls"},
        {"/decoder", R"("ByteLevel")", "decoder: expected an object"},
    };
    for (const Case& c : cases) {
        Json json = llama3();
        json[Json::json_pointer(c.section)] = Json::parse(c.value);
        refusal(json, c.part);
    }
    const std::pair<const char*, const char*> sequences[] = {{"normalizer", "normalizers"},
                                                             {"pre_tokenizer", "pretokenizers"},
                                                             {"post_processor", "processors"},
                                                             {"decoder", "decoders"}};
    for (const auto& [section, parts] : sequences) {
        Json deep = {{"type", "ByteLevel"}};
        for (int i = 0; i < 20; ++i) deep = {{"type", "Sequence"}, {parts, Json::array({deep})}};
        Json json = llama3();
        json[section] = deep;
        refusal(json, "nested deeper than 8 levels");
    }
    std::string text = "{\"version\": \"1.0\", \"model\": ";
    text += std::string(1000, '[') + std::string(1000, ']') + "}";
    expect_error(Exit::data, "deep", [&] { parse_json(text, "tokenizer.json"); });
}

Json golden_json(const std::string& name) {
    return read_json_file(golden_file("tokenizers/" + name + "/tokenizer.json"));
}

TEST(HuggingFaceTokenizer, damaged_models_of_other_kinds_are_refused) {
    struct Case {
        const char *tokenizer, *section, *value, *part;
    };
    const Case cases[] = {
        {"unigram", "/model/vocab", "{}", "model.vocab: expected an array of pieces and scores"},
        {"unigram", "/model/vocab/3", R"(["a"])", "expected a piece and its score"},
        {"unigram", "/model/vocab/3", R"([7, 0.5])", "expected a piece and its score"},
        {"unigram", "/model/vocab/3", R"(["<s>", 0.5])", "piece '<s>' is listed twice"},
        {"unigram", "/model/unk_id", "99999", "model.unk_id: expected the id of a piece, found 99999"},
        {"unigram", "/model/unk_id", "-1", "model.unk_id"},
        {"unigram", "/model/byte_fallback", "7", "byte_fallback: expected true or false"},
        {"unigram_charsmap", "/normalizer/precompiled_charsmap", "null", "precompiled_charsmap: expected a text"},
        {"unigram_charsmap", "/normalizer/precompiled_charsmap", R"("?")", "expected base64"},
        {"unigram_charsmap", "/normalizer/precompiled_charsmap", R"("AAAA")", "a trie of 0 bytes"},
        {"unigram_charsmap", "/normalizer/precompiled_charsmap", R"("////fwAA")", "a trie of 2147483647 bytes"},
        {"bert_cased", "/model/unk_token", "null", "unk_token: expected a text"},
        {"bert_cased", "/model/max_input_chars_per_word", "-5", "max_input_chars_per_word: expected a number"},
        {"bert_cased", "/model/vocab/a", "16777216", "expected an id from 0"},
        {"bert_cased", "/normalizer/lowercase", "7", "BertNormalizer: lowercase: expected true or false"},
        {"bert_cased", "/decoder/prefix", "7", "WordPiece: prefix: expected a text"},
        {"word_level_ctc", "/model/vocab", "[]", "model.vocab"},
    };
    for (const Case& c : cases) {
        Json json = golden_json(c.tokenizer);
        json[Json::json_pointer(c.section)] = Json::parse(c.value);
        refusal(json, c.part);
    }
}

TEST(HuggingFaceTokenizer, text_that_has_no_id_is_an_error_if_the_model_has_no_unknown_piece) {
    const auto encode = [](const std::string& name, const char* section, const Json& value) {
        Json json = golden_json(name);
        json[Json::json_pointer(section)] = value;
        json["normalizer"] = json["post_processor"] = nullptr;
        TokenCache cache;
        const std::string text = "\u4e00";
        expect_error(Exit::data, "tokenizer.json: model: it has no piece for '", [&] {
            HuggingFaceTokenizer(json, "tokenizer.json").encode_document(text, cache, PostProcess::no);
        });
    };
    encode("unigram", "/model/unk_id", nullptr);
    encode("bert_cased", "/model/unk_token", "none such");
    encode("word_level_ctc", "/model/unk_token", "none such");
}

/// A trie whose leaves and offsets lead anywhere is read within its bounds.
TEST(HuggingFaceTokenizer, a_damaged_charsmap_does_not_lead_outside) {
    Json json = golden_json("unigram_charsmap");
    auto& base64 = json["normalizer"]["precompiled_charsmap"].get_ref<std::string&>();
    const std::string whole = base64;
    int read = 0;
    for (size_t at = 8; at < whole.size() - 8; at += 37) {
        base64 = whole;
        base64[at] = base64[at] == '/' ? 'A' : '/';
        try {
            const HuggingFaceTokenizer tokenizer(json, "tokenizer.json");
            TokenCache cache;
            tokenizer.encode_document("\uFB01 e\u0301 \u2460 \r\n\t \u00BD", cache, PostProcess::no);
            ++read;
        } catch (const Error&) {
        }
    }
    EXPECT_GT(read, 20);
}

// COLONNADE_TOKENIZERS names a folder of more tokenizers with golden.jsonl, as tests/golden/make_tokenizer_golden.py
// writes them.
TEST(HuggingFaceTokenizer, ids_and_texts_of_more_tokenizers) {
    const char* root = std::getenv("COLONNADE_TOKENIZERS");
    if (!root) GTEST_SKIP() << "COLONNADE_TOKENIZERS names no folder";
    int equal = 0, different = 0, folders = 0;
    for (const auto& entry : fs::directory_iterator(root)) {
        if (!fs::exists(entry.path() / "golden.jsonl")) continue;
        try {
            const Lines lines = check_folder(entry.path());
            equal += lines.equal;
            different += lines.different;
            ++folders;
        } catch (const Error& e) {
            fmt::print("refused: {:.250}\n", e.what());
        }
    }
    fmt::print("{} tokenizers: {} lines equal, {} different\n", folders, equal, different);
}

// COLONNADE_TOKENIZER_JSON and COLONNADE_TEXT: prints the speed by CPU time of one thread, in documents of 2 KB.
TEST(HuggingFaceTokenizer, speed) {
    const char *json = std::getenv("COLONNADE_TOKENIZER_JSON"), *path = std::getenv("COLONNADE_TEXT");
    if (!json || !path) GTEST_SKIP() << "COLONNADE_TOKENIZER_JSON and COLONNADE_TEXT name no files";
    const auto tokenizer = HuggingFaceTokenizer::load(json);
    const std::string text = read_file(path);
    TokenCache cache;
    for (int round = 0; round < 3; ++round) {
        const std::clock_t start = std::clock();
        size_t ids = 0;
        for (size_t at = 0; at < text.size(); at += 2048)
            ids += tokenizer->encode_document(std::string_view(text).substr(at, 2048), cache, PostProcess::no).size();
        const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        fmt::print("{:.1f} MB/s, {} ids\n", static_cast<double>(text.size()) / seconds / 1e6, ids);
    }
}

}  // namespace
}  // namespace colonnade
