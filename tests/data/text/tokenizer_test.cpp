#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"

#include <sentencepiece_processor.h>
#include <sys/wait.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "engine/io/sha256.h"
#include "tests/support/file_test.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

/// The protobuf wire format, written by hand, for models that no trainer would produce.
std::string varint(uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes + static_cast<char>(value);
}
std::string number(int field, int64_t value) {
    return varint(static_cast<uint64_t>(field) << 3) + varint(static_cast<uint64_t>(value));
}
std::string bytes_field(int field, std::string_view content) {
    return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(content.size()) + std::string(content);
}
std::string piece(std::string_view text, int type = 1, float score = 0) {
    std::string bits(sizeof score, '\0');
    std::memcpy(bits.data(), &score, sizeof score);
    return bytes_field(1, bytes_field(1, text) + varint(2 << 3 | 5) + bits + number(3, type));
}
const std::string kSpecials = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3);
const std::string kModel = kSpecials + piece("\xE2\x96\x81") + piece("a", 1, -1) + piece("b", 1, -2);

/// A normaliser that maps text through `trie` (256 units) and `strings`.
std::string with_charsmap(std::vector<uint32_t> trie, std::string_view strings) {
    std::string map(sizeof(uint32_t) * (trie.size() + 1), '\0');
    const auto size = static_cast<uint32_t>(sizeof(uint32_t) * trie.size());
    std::memcpy(map.data(), &size, sizeof size);
    std::memcpy(map.data() + sizeof size, trie.data(), size);
    return kModel + bytes_field(3, bytes_field(2, map + std::string(strings)));
}

class TokenizerFile : public FileTest {
  protected:
    std::shared_ptr<const Tokenizer> load(std::string_view bytes) const {
        spill(path("m.model"), bytes);
        return Tokenizer::load(path("m.model"));
    }
    std::shared_ptr<const Tokenizer> train(TokenizerTraining options = {}) const {
        const char* syllables[] = {"ba", "cor", "du", "fen", "gil", "hom", "is", "jat", "kle", "mur", "nop"};
        std::string text;
        for (int i = 0; i < 300; ++i)
            text += fmt::format("the column {} of {}{}{} holds the {}{} roof\n", i, syllables[i % 11], syllables[i % 7],
                                syllables[i * i % 11], syllables[i % 5], syllables[i * 3 % 11]);
        spill(path("text.txt"), text);
        if (options.text_files.empty()) options.text_files = {path("text.txt")};
        options.output = path("new/tokenizer");
        if (options.vocab_size == 8000) options.vocab_size = 320;
        train_tokenizer(options);
        return Tokenizer::load(path("new"));
    }
};

TEST_F(TokenizerFile, TrainedModelsGiveBackWhatTheyTake) {
    for (const char* type : {"bpe", "unigram"}) {
        TokenizerTraining options;
        options.model_type = type;
        options.special_tokens = {"<|im_start|>", "<|im_end|>", "<a,\"b\">"};
        const auto tokenizer = train(options);
        EXPECT_EQ(tokenizer->vocab_size(), 320);
        EXPECT_EQ(tokenizer->unk(), 0);
        EXPECT_EQ(tokenizer->bos(), tokenizer->piece_id("<s>"));
        EXPECT_EQ(tokenizer->bos(), 1);
        EXPECT_EQ(tokenizer->eos(), 2);
        EXPECT_EQ(tokenizer->pad(), 3);
        EXPECT_EQ(tokenizer->piece(3), "<pad>");
        for (const std::string& special : options.special_tokens) {
            const auto id = tokenizer->piece_id(special);
            ASSERT_TRUE(id) << special;
            EXPECT_EQ(tokenizer->encode(special, Spelled::token), std::vector<int32_t>{*id});
            EXPECT_EQ(tokenizer->decode({*id}, SpecialTokens::keep), special);
        }
        const std::string texts[] = {
            "the column 12 stands",
            " leading",
            "trailing ",
            "  two  spaces   three ",
            "\n",
            "a\n\nb\n",
            "\ttab\there\r\n",
            "caf\u00e9 na\u00efve \u4e2d\u6587 \U0001f600\u200d\U0001f525",
            "e\u0301 \u00a0 \u3000 \ufb01",
            "</s> <s> <unk> <0x0A>",
            "0123456789",
            std::string("nul\0inside", 10),
            "\U0010ffff",
            "",
        };
        for (const std::string& text : texts) {
            for (const int32_t id : tokenizer->encode(text)) EXPECT_NE(id, 0) << text;
            EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << type;
            EXPECT_EQ(tokenizer->decode(tokenizer->encode("|" + text, Spelled::text, TextStart::continues)), "|" + text)
                << type;
        }
        EXPECT_EQ(tokenizer->encode("</s>").size(), tokenizer->encode("<xs>").size())
            << "text never becomes a control piece";
    }
}

TEST_F(TokenizerFile, DummyPrefixIsASwitch) {
    const auto tokenizer = train();
    const auto with = tokenizer->encode("column"),
               without = tokenizer->encode("column", Spelled::text, TextStart::behind_token);
    EXPECT_EQ(tokenizer->piece(with[0]), "\u2581column");
    EXPECT_NE(tokenizer->piece(without[0]).substr(0, 3), "\u2581");
    EXPECT_EQ(tokenizer->encode(" column", Spelled::text, TextStart::behind_token), with);
    // A model without a dummy prefix.
    const auto bare = load(kModel + bytes_field(3, number(3, 0)));
    EXPECT_EQ(bare->encode("ab"), (std::vector<int32_t>{4, 5}));
    EXPECT_EQ(bare->encode("ab", Spelled::text, TextStart::continues), (std::vector<int32_t>{4, 5}));
}

TEST_F(TokenizerFile, LooksUpPieces) {
    const auto tokenizer = load(kModel);
    EXPECT_EQ(tokenizer->piece_id("b"), 5);
    EXPECT_EQ(tokenizer->piece_id("<unk>"), 0);
    EXPECT_FALSE(tokenizer->piece_id("<|im_end|>"));
    EXPECT_FALSE(tokenizer->pad());
    EXPECT_EQ(tokenizer->content_hash(), sha256(kModel));
    EXPECT_EQ(tokenizer->path(), path("m.model"));
    EXPECT_EQ(tokenizer->decode({1, 4, 5, 2}), "ab");
    for (const int32_t id : {-1, 6}) {
        expect_error(Exit::data, "6", [&] { (void)tokenizer->piece(id); });
        expect_error(Exit::data, "cannot decode id", [&] { (void)tokenizer->decode({4, id}); });
    }
}

TEST_F(TokenizerFile, ThreadsShareOne) {
    const auto tokenizer = train();
    const auto text = [](int i) { return fmt::format("column {} holds the roof of column {}", i, i * i); };
    const auto start = [](size_t i) { return i % 2 ? TextStart::behind_token : TextStart::document; };
    std::vector<std::vector<int32_t>> ids(64);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            for (size_t i = t; i < ids.size(); i += 4)
                ids[i] = tokenizer->encode(text(static_cast<int>(i)), Spelled::text, start(i));
        });
    for (auto& thread : threads) thread.join();
    for (size_t i = 0; i < ids.size(); ++i)
        EXPECT_EQ(ids[i], tokenizer->encode(text(static_cast<int>(i)), Spelled::text, start(i)));
}

TEST_F(TokenizerFile, FoldersAreSearched) {
    spill(path("tokenizer.model"), kModel);
    EXPECT_EQ(Tokenizer::load(folder_)->path(), path("tokenizer.model"));
    std::filesystem::create_directory(path("empty"));
    expect_error(Exit::data, "empty: contains neither tokenizer.json nor tokenizer.model",
                 [&] { Tokenizer::load(path("empty")); });
    expect_error(Exit::data, "absent.model", [&] { Tokenizer::load(path("absent.model")); });
}

TEST_F(TokenizerFile, RefusesBadModels) {
    const std::vector<uint32_t> empty_trie(256, 0);
    const auto trie_with = [&](size_t place, uint32_t unit) {
        auto trie = empty_trie;
        trie[place] = unit;
        return trie;
    };
    std::string many;
    for (int i = 0; i < 1'000'001; ++i) many += piece(std::to_string(i));
    const struct {
        std::string bytes;
        const char* part;
    } cases[] = {
        {"", "m.model: expected a SentencePiece model, found an empty file"},
        {"\n  {\"version\": \"1.0\"}", "found JSON: a tokenizer.json is read under that name"},
        {"IQ== 0\nIg== 1\n", "found a tiktoken vocabulary"},
        {"GGUF and more", "m.model"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "m.model: a Git LFS pointer, not the file itself; get it: git lfs pull"},
        {"some text", "found another format, or a truncated model"},
        {bytes_field(7, "no pieces"), "found another format, or a truncated model"},
        {kModel.substr(0, kModel.size() - 1), "found another format, or a truncated model"},
        {many, "1000001 pieces; expected 1 to 1000000"},
        {kModel + piece("a"), "piece 6 is a duplicate"},
        {kModel + piece(""), "piece 6 has 0 bytes; expected 1 to 1024"},
        {kModel + piece(std::string(1025, 'x')), "piece 6 has 1025 bytes; expected 1 to 1024"},
        {kModel + piece("c", 1, std::nanf("")), "piece 6 has score nan; expected a finite number"},
        {kModel + piece("c", 1, -std::numeric_limits<float>::infinity()), "piece 6 has score -inf"},
        {kModel + piece("c", 9), "piece 6 has type 9"},
        {kModel + piece("<u>", 2), "2 unknown pieces; expected exactly one"},
        {piece("a") + piece("b"), "0 unknown pieces; expected exactly one"},
        {kModel + bytes_field(2, number(41, 6)), "bos_id is 6; expected -1 to 5"},
        {kModel + bytes_field(2, number(43, -2)), "pad_id is -2; expected -1 to 5"},
        {kModel + bytes_field(2, number(35, 1)), "SentencePiece rejects the model: "},  // byte_fallback without bytes
        {kModel + bytes_field(3, bytes_field(2, "ab")), "the normalizer table is damaged: it is truncated"},
        {kModel + bytes_field(5, bytes_field(2, "ab")), "the denormalizer table is damaged: it is truncated"},
        {with_charsmap(empty_trie, ""), "table is damaged: its trie does not fit"},
        {with_charsmap(std::vector<uint32_t>(255), std::string("a\0", 2)), "its trie does not fit"},
        {with_charsmap(empty_trie, "a"), "its last string has no end"},
        {with_charsmap(trie_with(0, 1u << 18), std::string("a\0", 2)), "a branch leads outside it"},
        {with_charsmap(trie_with(9, 1u << 31 | 2), std::string("a\0", 2)), "a replacement is outside it"},
        {with_charsmap(trie_with(0, 1u << 10 | 1u << 8), std::string("a\0", 2)), "a replacement is missing"},
    };
    for (const auto& [bytes, part] : cases) expect_error(Exit::data, part, [&, &bytes = bytes] { load(bytes); });
    EXPECT_NO_THROW(load(with_charsmap(empty_trie, std::string("a\0", 2))));
    EXPECT_NO_THROW(load(kModel + piece(std::string(1024, 'x'))));
    std::filesystem::resize_file(path("m.model"), (size_t{64} << 20) + 1);
    expect_error(Exit::data, "m.model", [&] { Tokenizer::load(path("m.model")); });
}

/// Truncated and bit-flipped files are rejected or load; loaded models encode without a crash.
TEST_F(TokenizerFile, SurvivesDamage) {
    const std::string golden = slurp(golden_file("template_golden.model"));
    ASSERT_GT(golden.size(), 1000u);
    int refused = 0;
    const auto try_damaged = [&](const std::string& bytes) {
        try {
            const auto tokenizer = load(bytes);
            const auto ids = tokenizer->encode("Hello \U0001f600 world\n");
            EXPECT_LT(*std::max_element(ids.begin(), ids.end()), tokenizer->vocab_size());
        } catch (const Error& e) {
            EXPECT_EQ(e.exit(), Exit::data) << e.what();
            ++refused;
        }
    };
    for (size_t i = 0; i < 60; ++i) try_damaged(golden.substr(0, golden.size() * i / 60));
    for (size_t i = 0; i < 120; ++i) {
        std::string bytes = golden;
        bytes[i * 997 % bytes.size()] ^= static_cast<char>(1 << i % 8);
        try_damaged(bytes);
    }
    EXPECT_GT(refused, 60) << "a cut nearly always shows";
}

TEST_F(TokenizerFile, TrainsOnJsonlTexts) {
    std::string rows;
    for (int i = 0; i < 200; ++i)
        rows += fmt::format(R"({{"prompt": "zebra {}\nzebra", "completion": "quagga {}"}})", i, i) + "\n";
    spill(path("rows.jsonl"), rows);
    TokenizerTraining options;
    options.text_files = {path("rows.jsonl")};
    options.vocab_size = 300;
    const auto tokenizer = train(options);
    EXPECT_TRUE(tokenizer->piece_id("\u2581quagga"));
    EXPECT_FALSE(tokenizer->piece_id("\u2581prompt")) << "keys are not text";
    EXPECT_EQ(tokenizer->piece(tokenizer->encode("\n", Spelled::text, TextStart::continues)[0]), "<0x0A>");
    EXPECT_NE(slurp(path("new/tokenizer.vocab")).find("\u2581quagga\t"), std::string::npos);
}

TEST_F(TokenizerFile, TrainingIsTheSameOnAnyNumberOfThreads) {
    for (const char* type : {"bpe", "unigram"}) {
        std::string vocabulary;
        for (const int threads : {1, 3}) {
            TokenizerTraining options;
            options.model_type = type;
            options.threads = threads;
            train(options);
            const std::string found = slurp(path("new/tokenizer.vocab"));
            if (threads == 1) vocabulary = found;
            EXPECT_TRUE(found == vocabulary) << type;
        }
    }
}

TEST_F(TokenizerFile, RefusesBadTraining) {
    const auto refuses = [&](Exit exit, const std::string& part, auto change) {
        TokenizerTraining options;
        options.text_files = {path("text.txt")};
        options.vocab_size = 300;
        change(options);
        expect_error(exit, part, [&] { train(options); });
    };
    spill(path("rows.jsonl"), "{\"text\": \"a\"}\n{\"text\": 1}\n");
    spill(path("ids.jsonl"), "{\"input_ids\": [1]}\n");
    spill(path("blank.txt"), "\n\n");
    refuses(Exit::config, "vocabulary size 260; expected 261 to 1000000", [](auto& o) { o.vocab_size = 260; });
    refuses(Exit::config, "training a tokenizer of 7000 pieces: Vocabulary size too high (7000)",
            [](auto& o) { o.vocab_size = 7000; });
    refuses(Exit::config, "model type 'word'; expected bpe or unigram", [](auto& o) { o.model_type = "word"; });
    refuses(Exit::config, "special token 'a b'; expected a token without white space",
            [](auto& o) { o.special_tokens = {"a b"}; });
    refuses(Exit::config, "special token '<s>' exists already", [](auto& o) { o.special_tokens = {"<s>"}; });
    refuses(Exit::config, "special token 'x' exists already", [](auto& o) { o.special_tokens = {"x", "x"}; });
    refuses(Exit::data, "absent.txt: cannot open", [&](auto& o) { o.text_files = {path("absent.txt")}; });
    refuses(Exit::data, "blank.txt: no text", [&](auto& o) { o.text_files = {path("blank.txt")}; });
    refuses(Exit::data, "rows.jsonl:2: key 'text': expected a string",
            [&](auto& o) { o.text_files = {path("rows.jsonl")}; });
    refuses(Exit::data, "ids.jsonl:1: the row contains token ids",
            [&](auto& o) { o.text_files = {path("ids.jsonl")}; });
    EXPECT_FALSE(std::filesystem::exists(path("new/tokenizer.model")));
}

TEST_F(TokenizerFile, Program) {
    spill(path("a.txt"), "one two three two one\nthree two one\n");
    const auto run = [&](const std::string& arguments) {
        const std::string command =
            fmt::format("{} {} > {} 2>&1", program_path("train_tokenizer"), arguments, path("log"));
        const int status = std::system(command.c_str());
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    EXPECT_EQ(
        run(fmt::format(
            "--text {0}/a.txt --vocab-size 274 --special '<|im_start|>' --special '<|im_end|>' --output {0}/out/t",
            folder_)),
        0)
        << slurp(path("log"));
    EXPECT_EQ(slurp(path("log")), path("out/t.model") + ": 274 pieces\n");
    EXPECT_TRUE(Tokenizer::load(path("out/t.model"))->piece_id("<|im_end|>"));
    EXPECT_EQ(run("--text a.txt"), 2);
    EXPECT_EQ(run(fmt::format("--text {0}/none.txt --output {0}/out/u", folder_)), 3);
    EXPECT_NE(slurp(path("log")).find("train_tokenizer: error: "), std::string::npos);
}

}  // namespace
}  // namespace colonnade
