// What is refused takes little memory: a file of another person, made to take as much as it can, costs the reader at most
// 256 MB beyond what its process has, in its child processes too.
//
// COLONNADE_SHOW_MEMORY=1 prints the peak of each case.

#include <sys/resource.h>

#include <functional>

#include "data/rows/rows.h"
#include "data/store/build_store.h"
#include "data/text/chat_renderer.h"
#include "data/text/text_folder.h"
#include "engine/io/files.h"
#include "engine/io/gguf.h"
#include "engine/io/hdf5.h"
#include "engine/io/hdf5_library.h"
#include "engine/io/safetensors.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_run.h"
#include "train/folders/adapter_folder.h"
#include "train/model/model_config.h"

namespace colonnade {
namespace {

constexpr int64_t most_mib = 256;

class RefusedMemory : public FileTest {
  protected:
    void SetUp() override {
#ifdef __SANITIZE_ADDRESS__
        GTEST_SKIP() << "the address sanitizer has an allocator of its own, which keeps what is freed";
#endif
        FileTest::SetUp();
    }

    /// Runs `read` in a child process, which must refuse with `exit`, within the memory.
    static void expect_refused(const char* what, Exit exit, const std::function<void()>& read) {
        SCOPED_TRACE(what);
        const int code = exit_of_child([&] {
            const int64_t before = resident_mib();
            int result = 0;
            try {
                read();
            } catch (const Error& e) {
                result = static_cast<int>(e.exit());
                if (std::getenv("COLONNADE_SHOW_MEMORY")) fmt::print("  {:.150}\n", e.what());
            }
            const int64_t own = peak_mib(RUSAGE_SELF) - before, child = peak_mib(RUSAGE_CHILDREN) - before;
            if (std::getenv("COLONNADE_SHOW_MEMORY")) fmt::print("{:40} {:5} MiB\n", what, std::max(own, child));
            EXPECT_LE(std::max(own, child), most_mib);
            return testing::Test::HasFailure() ? 77 : result;
        });
        EXPECT_EQ(code, static_cast<int>(exit));
    }

  private:
    static int64_t resident_mib() {
        int64_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages >> pages;
        return pages * sysconf(_SC_PAGESIZE) >> 20;
    }
    static int64_t peak_mib(int who) {
        rusage usage{};
        getrusage(who, &usage);
        return usage.ru_maxrss >> 10;
    }
};

std::string repeated(std::string_view part, size_t bytes) {
    std::string text;
    text.reserve(bytes + part.size());
    while (text.size() < bytes) text += part;
    return text;
}

/// JSON of `bytes` around many values, as a member "x" of an object.
std::string many_values(std::string_view value, size_t bytes) {
    std::string text = "{\"x\": [" + repeated(std::string(value) + ",", bytes);
    return text + std::string(value) + "]}";
}

std::string safetensors_of(const std::string& header) {
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header;
}

/// Keys in great number, each with an empty object.
std::string many_keys(size_t count) {
    std::string text = "{";
    for (size_t i = 0; i < count; ++i) text += fmt::format("{}\"{:x}\":{{}}", i ? "," : "", i);
    return text + "}";
}

TEST_F(RefusedMemory, Weights) {
    const auto open = [&](const char* what, const std::string& header) {
        spill(path("model.safetensors"), safetensors_of(header));
        expect_refused(what, Exit::data, [&] { SafetensorsReader reader(path("model.safetensors")); });
    };
    open("safetensors: header of 100 MB", many_keys(7'000'000));
    open("safetensors: header of 4 MB", many_keys(300'000));
    open("safetensors: empty arrays", many_values("[]", limits::safetensors_header_bytes - 100));
    std::filesystem::remove(path("model.safetensors"));
    spill(path("model.safetensors.index.json"), many_keys(4'000'000));
    expect_refused("index of 60 MB", Exit::data, [&] { SafetensorsReader reader(folder_); });
    spill(path("model.safetensors.index.json"), "{\"weight_map\":" + many_keys(300'000) + "}");
    expect_refused("index of 4 MB", Exit::data, [&] { SafetensorsReader reader(folder_); });
}

TEST_F(RefusedMemory, Gguf) {
    const auto u64 = [](uint64_t n) { return std::string(reinterpret_cast<const char*>(&n), sizeof n); };
    const auto u32 = [](uint32_t n) { return std::string(reinterpret_cast<const char*>(&n), sizeof n); };
    const std::string head = "GGUF" + u32(3) + u64(0);
    const auto open = [&](const char* what, const std::string& pairs) {
        spill(path("model.gguf"), head + pairs);
        expect_refused(what, Exit::data, [&] {
            (void)read_model_config(path("model.gguf"));
            (void)read_text_folder(path("model.gguf"));
        });
    };
    const std::string key = "tokenizer.ggml.tokens";
    open("GGUF: a huge count", u64(1) + u64(key.size()) + key + u32(9) + u32(8) + u64(uint64_t{1} << 60));
    open("GGUF: 8 million texts",
         u64(1) + u64(key.size()) + key + u32(9) + u32(8) + u64(8'000'000) + repeated(u64(0), 64'000'000));
    open("GGUF: 2 million texts",
         u64(1) + u64(key.size()) + key + u32(9) + u32(8) + u64(2'000'000) + repeated(u64(0), 16'000'000));
    open("GGUF: 100 MB of bytes",
         u64(1) + u64(key.size()) + key + u32(9) + u32(0) + u64(100'000'000) + std::string(100'000'000, '\0'));
}

TEST_F(RefusedMemory, SettingsOfAModel) {
    const auto with = [&](const char* what, const char* name, const std::string& text,
                          const std::function<void()>& read) {
        spill(path(name), text);
        expect_refused(what, Exit::data, read);
        std::filesystem::remove(path(name));
    };
    const auto config = [&] { (void)read_model_config(folder_); };
    with("config.json: arrays", "config.json", many_values("[]", limits::model_config_bytes - 100), config);
    with("adapter_config.json: arrays", "adapter_config.json", many_values("[]", limits::json_bytes - 100),
         [&] { (void)read_adapter_config(folder_); });
    const auto text = [&] { (void)read_text_folder(folder_); };
    with("tokenizer.json: 64 MB of arrays", "tokenizer.json", many_values("[]", 64'000'000), text);
    with("tokenizer.json: 38 MB of arrays", "tokenizer.json", many_values("[]", 38'000'000), text);
    with("tokenizer.json: numbers", "tokenizer.json", many_values("1", 38'000'000), text);
    with("tokenizer.json: keys", "tokenizer.json", many_keys(2'500'000), text);
    spill(path("tokenizer.json"), slurp(golden_file("tokenizers/gpt2_nfkc/tokenizer.json")));
    with("tokenizer_config.json: objects", "tokenizer_config.json", many_values("{}", limits::json_bytes - 100), text);
}

/// A tokenizer.json of the size of Gemma 3's, 262,144 pieces and 514,906 merges as pairs on lines of their own: 30 MB.
std::string large_tokenizer() {
    std::vector<std::string> pieces;
    for (char c = 'a'; c <= 'z'; ++c) pieces.emplace_back(1, c);
    for (size_t i = 0; pieces.size() < 262'144; ++i)
        for (char c = 'a'; c <= 'z' && pieces.size() < 262'144; ++c) pieces.push_back(pieces[i] + c);
    std::string vocab, merges;
    for (size_t i = 0; i < pieces.size(); ++i) vocab += fmt::format("{}      \"{}\": {}", i ? ",\n" : "", pieces[i], i);
    size_t count = 0;
    const auto merge = [&](const std::string& left, const std::string& right) {
        if (count == 514'906) return;
        merges += fmt::format("{}      [\n        \"{}\",\n        \"{}\"\n      ]", count++ ? ",\n" : "", left, right);
    };
    for (const std::string& piece : pieces) {
        if (piece.size() < 2) continue;
        merge(piece.substr(0, piece.size() - 1), piece.substr(piece.size() - 1));
        if (piece.size() > 2) merge(piece.substr(0, 1), piece.substr(1));
    }
    return "{\n  \"version\": \"1.0\",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"vocab\": {\n" + vocab +
           "\n    },\n    \"merges\": [\n" + merges + "\n    ]\n  }\n}\n";
}

TEST_F(RefusedMemory, TheLargestRealTokenizerIsRead) {
    spill(path("tokenizer.json"), large_tokenizer());
    EXPECT_GT(std::filesystem::file_size(path("tokenizer.json")), 28'000'000u);
    const TextFolder text = read_text_folder(folder_);
    EXPECT_EQ(text.tokenizer->vocab_size(), 262'144);
}

TEST_F(RefusedMemory, SentencePiece) {
    const auto open = [&](const char* what, const std::string& model) {
        spill(path("tokenizer.model"), model);
        expect_refused(what, Exit::data, [&] { (void)Tokenizer::load(path("tokenizer.model")); });
    };
    const std::string whole = slurp(golden_file("template_golden.model"));
    open("tokenizer.model: 60 MB", whole + repeated(std::string("\x0A\0", 2), 60'000'000));
    open("tokenizer.model: empty pieces", whole + repeated(std::string("\x0A\0", 2), 30'000'000));
    open("tokenizer.model: 1 million pieces", whole + repeated(std::string("\x0A\0", 2), 2'000'000));
    // Field 2, the settings of the trainer, with many symbols (field 30) of no bytes.
    std::string symbols = repeated(std::string("\xF2\x01\0", 3), 30'000'000), size;
    for (size_t n = symbols.size(); n > 0; n >>= 7) size += static_cast<char>((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
    open("tokenizer.model: symbols", whole + "\x12" + size + symbols);
}

TEST_F(RefusedMemory, RowsOnEightThreads) {
    const auto build = [&](const char* what, const std::string& row) {
        std::string rows;
        for (int i = 0; i < 12; ++i) rows += row + "\n";
        spill(path("rows.jsonl"), R"({"input_ids": [1, 2], "labels": [1, 2]})"
                                  "\n" +
                                      rows);
        expect_refused(what, Exit::data, [&] {
            StoreRequest request;
            request.name = "train";
            request.folder = path("prepared");
            request.datasets = {{.path = path("rows.jsonl")}};
            request.threads = 8;
            request.encode.vocab_size = 1000;
            request.progress.write = [](std::string_view) {};
            build_store(request);
        });
    };
    const size_t most = limits::row_bytes - 100;
    build("rows: numbers", many_values("1", most));
    build("rows: empty arrays", many_values("[]", most));
    build("rows: empty objects", many_values("{}", most));
    build("rows: texts", many_values("\"\"", most));
    build("rows: one text", "{\"x\": \"" + std::string(most, 'a') + "\"}");
}

TEST_F(RefusedMemory, Stores) {
    const auto make = [&](const std::function<void(hid_t)>& fill) {
        const hdf5::Session session;
        std::filesystem::remove(path("x.h5"));
        const hdf5::Handle file(H5Fcreate(path("x.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, hdf5::file_access()));
        fill(file);
    };
    make([](hid_t file) {
        const hsize_t count = hsize_t{1} << 28, chunk = hsize_t{1} << 20;
        const hdf5::Handle space(H5Screate_simple(1, &count, nullptr)), creation(H5Pcreate(H5P_DATASET_CREATE));
        H5Pset_chunk(creation, 1, &chunk);
        H5Pset_deflate(creation, 9);
        const hdf5::Handle data(H5Dcreate2(file, "tokens", H5T_STD_I32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT));
        const std::vector<int32_t> zeros(chunk);
        const hdf5::Handle memory(H5Screate_simple(1, &chunk, nullptr));
        for (hsize_t begin = 0; begin < count; begin += 64 * chunk) {
            H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, nullptr, &chunk, nullptr);
            H5Dwrite(data, H5T_NATIVE_INT32, memory, space, H5P_DEFAULT, zeros.data());
        }
    });
    expect_refused("HDF5: 1 GB of zeros in deflate", Exit::data, [&] {
        Hdf5Reader reader(path("x.h5"));
        (void)reader.read_all<int32_t>("tokens");
    });
}

TEST_F(RefusedMemory, Templates) {
    const auto tokenizer = Tokenizer::load(golden_file("template_golden.model"));
    const auto render = [&](const char* what, const std::string& source) {
        expect_refused(what, Exit::data, [&] {
            const ChatRenderer renderer(
                std::make_shared<const ChatTemplate>("bomb", source, "", ChatTemplate::Settings{}), tokenizer, {});
            const std::vector<Message> chat = {{"user", "Hi", {}, {}}, {"assistant", "Yo", {}, {}}};
            const Json none;
            (void)renderer.render({chat, none}, "here");
        });
    };
    render("template: a text", "{% set x = 'a' * 1000000000 %}");
    std::string many, lists;
    for (int i = 0; i < 60; ++i) many += fmt::format("{{% set x{} = ('a' * 30000000) ~ '{}' %}}", i, i);
    render("template: many texts", many);
    render("template: doubled",
           "{% set n = namespace(t='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}"
           "{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}");
    for (int i = 0; i < 60; ++i) lists += fmt::format("{{% set y{} = range(90000) | list %}}", i);
    render("template: lists", lists);
    render("template: output", "{% for i in range(90000) %}{{ 'a' * 10000 }}{% endfor %}");
}

TEST_F(RefusedMemory, Configs) {
    std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 12; ++i) {
        const std::string alias = fmt::format("*a{}", i - 1);
        bomb += fmt::format("a{0}: &a{0} [{1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}]\n", i, alias);
    }
    expect_refused("YAML: anchors", Exit::config, [&] { (void)parse_config(bomb, "config.yaml"); });
    expect_refused("YAML: values", Exit::config, [&] {
        (void)parse_config("a: [" + repeated("[],", limits::yaml_bytes - 100) + "]", "config.yaml");
    });
}

TEST_F(RefusedMemory, ParquetPages) {
    const std::string whole = slurp(golden_file("parquet/read_plain.parquet"));
    for (const size_t at : {size_t{5}, whole.size() / 2}) {
        std::string damaged = whole;
        for (size_t i = at; i < std::min(at + 8, damaged.size()); ++i) damaged[i] = '\xFF';
        spill(path("rows.parquet"), damaged);
        expect_refused("Parquet: huge sizes", Exit::data, [&] {
            RowReader reader({.path = path("rows.parquet")});
            for (Row row; reader.next(row);) {
            }
        });
    }
}

}  // namespace
}  // namespace colonnade
