// Readers of other people's files under mutated input: whatever the bytes are, a reader succeeds or throws an Error. It
// does not crash, run for more than 10 seconds, or take more than 256 MB beyond what its process has.
//
// COLONNADE_MUTATIONS is the number of inputs for each format (default 300), COLONNADE_MUTATION_SEED their seed. A
// failure prints the format and the number of the input, and keeps the file in the temporary folder.

#include <sys/mman.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "data/rows/rows.h"
#include "data/store/build_store.h"
#include "data/text/chat_renderer.h"
#include "data/text/hugging_face_tokenizer.h"
#include "data/text/text_folder.h"
#include "engine/hub/hub_api.h"
#include "engine/io/files.h"
#include "engine/io/gguf.h"
#include "engine/io/safetensors.h"
#include "tests/support/file_test.h"
#include "tests/support/mutate.h"
#include "tests/support/paths.h"
#include "train/config/config.h"
#include "train/folders/adapter_folder.h"
#include "train/model/model_config.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

struct Format {
    const char* name;
    std::vector<std::string> corpus;
    std::string file;  ///< name of the mutated file in a folder of its own
    std::function<void(const std::string& folder, const std::string& file)> read;
    bool json = false;  ///< half of the mutations change values
};

std::vector<std::string> files_in(const std::string& folder, const std::string& suffix) {
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(golden_file(folder)))
        if (entry.path().string().ends_with(suffix)) files.push_back(entry.path());
    std::ranges::sort(files);
    return files;
}

void read_rows(const std::string& file) {
    RowReader reader({.path = file});
    int rows = 0;
    for (Row row; rows < 100 && reader.next(row);) ++rows;
}

template <typename Reader>
void read_tensors(const std::string& file) {
    const Reader reader(file);
    for (const TensorInfo& info : reader.tensors()) {
        int64_t elements = 1;
        for (const int64_t size : info.shape) elements *= size;
        if (!info.readable || elements > 1 << 20) continue;
        std::vector<float> values(static_cast<size_t>(elements));
        reader.read(info, Tensor(values.data(), DType::f32, {elements}));
    }
}

void read_tokenizer(const std::string& folder) {
    const TextFolder text = read_text_folder(folder);
    TokenCache cache;
    for (const char* line :
         {"Hello  world 123", "\xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80 </s><|im_end|>", "\n\n\t x"})
        (void)text.tokenizer->decode(text.tokenizer->encode(line, Spelled::text, TextStart::document, cache).ids,
                                     SpecialTokens::keep);
}

void render_chat(const std::string& file) {
    static const auto tokenizer = Tokenizer::load(golden_file("template_golden.model"));
    const auto chat_template =
        std::make_shared<const ChatTemplate>("mutated", read_file(file), "", ChatTemplate::Settings{});
    const ChatRenderer renderer(chat_template, tokenizer, {});
    const std::vector<Message> chat = {{"user", "Hi", {}, {}}, {"assistant", "Yo", {}, {}}};
    const Json none;
    (void)renderer.render({chat, none}, "here");
}

std::string store_file(const std::string& folder) {
    TokenStore store;
    store.statistics.files.push_back({.path = "rows.jsonl", .dataset = 0});
    store.add({.tokens = {1, 2, 3}, .weights = {0, 1, 1}, .branch_begins = {0}}, 0, 1);
    store.count_samples();
    store.write(folder + "/written.h5", "key");
    return slurp(folder + "/written.h5");
}

std::vector<Format> formats(const std::string& scratch) {
    const auto made = [&](const std::string& name, const std::string& content) {
        spill(scratch + "/" + name, content);
        return scratch + "/" + name;
    };
    std::vector<std::string> templates;
    for (const std::string& name : chat_template_names())
        templates.push_back(made(name + ".jinja", ChatTemplate::built_in(name)->source()));
    const std::string rows =
        R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": []})"
        "\n"
        R"({"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}]})"
        "\n";
    const std::string pairs = R"({"prompt": "a", "chosen": "b", "rejected": "c", "score": NaN})"
                              "\n";
    const std::string config =
        "model: {hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}\n"
        "tokenizer_name_or_path: t\ndatasets: [{path: a, columns: {text: b}}]\nlearning_rate: 1e-3\nmax_steps: 3\n";
    const std::string adapter =
        R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "x", "bias": "none", "task_type": "CAUSAL_LM"})";
    const std::string tree =
        R"([{"type": "directory", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 0, "path": "data"}, )"
        R"({"type": "file", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 12, "path": "a/config.json"}, )"
        R"({"type": "file", "oid": "0123456789abcdef0123456789abcdef01234567", "size": 9, "path": "m.safetensors", )"
        R"("lfs": {"oid": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "size": 9}}])";
    return {
        {"safetensors", files_in("models", "model.safetensors"), "model.safetensors",
         [](const auto&, const auto& file) { read_tensors<SafetensorsReader>(file); }},
        {"gguf", files_in("gguf", ".gguf"), "model.gguf",
         [](const auto&, const auto& file) {
             read_tensors<GgufReader>(file);
             (void)read_model_config(file);
         }},
        {"config.json", files_in("models", "config.json"), "config.json",
         [](const auto& folder, const auto&) { (void)read_model_config(folder); }, true},
        {"tokenizer.json", files_in("tokenizers", "tokenizer.json"), "tokenizer.json",
         [](const auto& folder, const auto&) { read_tokenizer(folder); }, true},
        {"template", templates, "chat_template.jinja", [](const auto&, const auto& file) { render_chat(file); }},
        {"parquet", files_in("parquet", ".parquet"), "rows.parquet",
         [](const auto&, const auto& file) { read_rows(file); }},
        {"rows",
         {made("rows.jsonl", rows), made("pairs.jsonl", pairs)},
         "rows.jsonl",
         [](const auto&, const auto& file) { read_rows(file); }},
        {"yaml",
         {made("config.yaml", config)},
         "config.yaml",
         [](const auto&, const auto& file) { (void)parse_config(read_file(file), "config.yaml"); }},
        {"adapter",
         {made("adapter_config.json", adapter)},
         "adapter_config.json",
         [](const auto& folder, const auto&) { (void)read_adapter_config(folder); },
         true},
        {"hub",
         {made("tree.json", tree)},
         "tree.json",
         [](const auto&, const auto& file) { (void)parse_tree(read_file(file), file); },
         true},
        {"store",
         {made("store.h5", store_file(scratch))},
         "store.h5",
         [](const auto&, const auto& file) { (void)TokenStore::open(file, "key", 100); }},
    };
}

int64_t number_of(const char* variable, int64_t otherwise) {
    const char* text = std::getenv(variable);
    return text ? std::atoll(text) : otherwise;
}

std::string mutated(const Format& format, int64_t number, uint64_t seed) {
    Random random(seed * 1'000'003 + static_cast<uint64_t>(number));
    const std::string bytes = slurp(format.corpus[below(random, format.corpus.size())]);
    if (format.json && below(random, 2)) {
        Json json = parse_json(bytes, format.name);
        for (size_t n = 1 + below(random, 3); n > 0; --n) mutate_value(json, random);
        return json.dump();
    }
    return mutate_bytes(bytes, slurp(format.corpus[below(random, format.corpus.size())]), random);
}

/// Bytes of address space in use.
rlim_t address_space() {
    std::ifstream file("/proc/self/statm");
    rlim_t pages = 0;
    file >> pages;
    return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

class HostileFiles : public FileTest {
  protected:
    /// Reads inputs [first, last) in a child process, which says in `reached` where it is. Returns how it ended: 0, or
    /// 128 + signal, or 1 for an exception that is no Error.
    int run(const Format& format, int64_t first, int64_t last, uint64_t seed, volatile int64_t* reached) const {
        return exit_of_child([&] {
            const rlim_t most = address_space() + (rlim_t{256} << 20);
            const rlimit memory{most, most}, core{0, 0};
            setrlimit(RLIMIT_CORE, &core);
            const std::string folder = path("input"), file = folder + "/" + format.file;
            for (int64_t i = first; i < last; ++i) {
                *reached = i;
                spill(file, mutated(format, i, seed));
                setrlimit(RLIMIT_AS, &memory);
                alarm(10);
                try {
                    format.read(folder, file);
                } catch (const Error&) {
                } catch (const std::exception& e) {
                    fmt::print(stderr, "{}, input {}: {}\n", format.name, i, e.what());
                    return 1;
                }
                alarm(0);
            }
            return 0;
        });
    }
};

TEST_F(HostileFiles, AreReadOrRefused) {
    const int64_t inputs = number_of("COLONNADE_MUTATIONS", 300);
    const auto seed = static_cast<uint64_t>(number_of("COLONNADE_MUTATION_SEED", 1));
    fs::create_directories(path("input"));
    fs::create_directories(path("corpus"));
    auto* reached = static_cast<volatile int64_t*>(
        mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(reached, MAP_FAILED);
    for (const Format& format : formats(path("corpus"))) {
        ASSERT_FALSE(format.corpus.empty()) << format.name;
        int64_t failures = 0;
        for (int64_t first = 0; first < inputs && failures < 5; first = *reached + 1) {
            *reached = inputs - 1;
            const int exit = run(format, first, inputs, seed, reached);
            if (exit == 0) break;
            ++failures;
            const std::string kept = fmt::format("{}mutated_{}_{}", testing::TempDir(), format.name, *reached);
            spill(kept, mutated(format, *reached, seed));
            ADD_FAILURE() << format.name << ", input " << *reached << ": "
                          << (exit > 128 ? strsignal(exit - 128) : "an exception that is no Error") << "; " << kept;
        }
        fs::remove_all(path("input"));
        fs::create_directories(path("input"));
    }
}

}  // namespace
}  // namespace colonnade
