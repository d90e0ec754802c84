#include "data/text/tokenizer.h"

#include <sentencepiece_processor.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "data/text/sentencepiece_check.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/sha256.h"

namespace colonnade {

struct Tokenizer::Impl {
    std::string path, content_hash;
    sentencepiece::SentencePieceProcessor processor;
    /// The same model without the leading dummy space; null if `processor` adds none.
    std::unique_ptr<sentencepiece::SentencePieceProcessor> without_prefix;
    bool words_stand_alone = false;

    std::vector<int32_t> encode(std::string_view text, bool dummy_prefix) const;
    std::vector<int32_t> encode_words(std::string_view text, WordCache& words) const;
};

namespace {

constexpr size_t model_limit = size_t{64} << 20;

std::string model_file(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code error;
    if (!fs::is_directory(path, error)) return path;
    const fs::path folder(path);
    if (fs::exists(folder / "tokenizer.model", error)) return (folder / "tokenizer.model").string();
    if (fs::exists(folder / "tokenizer.json", error))
        fail(Exit::data,
             "{}: contains tokenizer.json but no tokenizer.model; only SentencePiece models are supported; "
             "pre-tokenised rows ({{\"input_ids\": [...]}}) work with any model",
             path);
    fail(Exit::data, "{}: contains no tokenizer.model; expected a SentencePiece model", path);
}

void load_processor(sentencepiece::SentencePieceProcessor& processor, const std::string& bytes,
                    const std::string& path) {
    std::string refusal;
    try {
        if (const auto status = processor.LoadFromSerializedProto(bytes); !status.ok()) refusal = status.ToString();
    } catch (const std::exception& e) {  // thrown by its trie over the pieces
        refusal = e.what();
    }
    if (!refusal.empty()) fail(Exit::data, "{}: SentencePiece rejects the model: {}", path, refusal);
}

/// Loads the model, encodes and decodes with it. A damaged model crashes here.
bool try_model(const std::string& bytes) {
    sentencepiece::SentencePieceProcessor processor;
    if (!processor.LoadFromSerializedProto(bytes).ok()) return false;
    const std::string texts[] = {
        "", " ", "Hello world\n\t 123", "\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80", "\xFF\xC0", std::string(2000, 'a')};
    std::vector<int> ids;
    for (const std::string& text : texts)
        if (!processor.Encode(text, &ids).ok()) return false;
    ids.resize(static_cast<size_t>(processor.GetPieceSize()));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i);
    std::string text;
    return processor.Decode(ids, &text).ok();
}

/// Runs try_model in a child process. A rejected model is no error here: the load that follows reports the library's
/// own message.
void probe_model(const std::string& bytes, const std::string& path) {
    constexpr int refused = 42;
    constexpr unsigned seconds = 60;
    const pid_t child = fork();
    if (child < 0) fail(Exit::memory, "{}: cannot start a process to test the model: {}", path, std::strerror(errno));
    if (child == 0) {
        std::signal(SIGALRM, SIG_DFL);
        alarm(seconds);
        if (!std::freopen("/dev/null", "w", stderr)) _exit(refused);
        try {
            _exit(try_model(bytes) ? 0 : refused);
        } catch (...) {
            _exit(refused);
        }
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) fail(Exit::internal, "waiting for the test of {}: {}", path, std::strerror(errno));
    if (WIFSIGNALED(status))
        fail(Exit::data, "{}: the model is damaged: SentencePiece crashed on it ({})", path,
             strsignal(WTERMSIG(status)));
    if (const int code = WEXITSTATUS(status); code != 0 && code != refused)
        fail(Exit::data, "{}: the model is damaged: SentencePiece crashed on it (exit code {})", path, code);
}

std::optional<int32_t> if_any(int id) {
    return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
    auto impl = std::make_unique<Impl>();
    impl->path = model_file(path);
    const std::string bytes = read_file(impl->path, model_limit);
    impl->content_hash = sha256(bytes);
    const std::optional<std::string> without_prefix = check_sentencepiece_model(bytes, impl->path);
    probe_model(bytes, impl->path);
    load_processor(impl->processor, bytes, impl->path);
    if (without_prefix) {
        impl->without_prefix = std::make_unique<sentencepiece::SentencePieceProcessor>();
        load_processor(*impl->without_prefix, *without_prefix, impl->path);
    }
    impl->words_stand_alone = words_stand_alone(bytes);
    return std::make_shared<const Tokenizer>(std::move(impl));
}

std::vector<int32_t> Tokenizer::Impl::encode(std::string_view text, bool dummy_prefix) const {
    const auto& chosen = dummy_prefix || !without_prefix ? processor : *without_prefix;
    std::vector<int32_t> ids;
    if (const auto status = chosen.Encode(text, &ids); !status.ok())
        fail(Exit::data, "{}: SentencePiece cannot encode: {}", path, status.ToString());
    const int32_t size = processor.GetPieceSize();
    for (const int32_t id : ids)
        if (id < 0 || id >= size) fail(Exit::data, "{}: the model gives id {} with {} pieces", path, id, size);
    return ids;
}

/// End of the first word of `text`: the first space that follows something other than a space.
static size_t end_of_word(std::string_view text) {
    constexpr std::string_view escaped_space = "\xE2\x96\x81";
    for (size_t end = text.find(' ', 1); end != text.npos; end = text.find(' ', end + 1))
        if (text[end - 1] != ' ' && !text.substr(0, end).ends_with(escaped_space)) return end;
    return text.size();
}

std::vector<int32_t> Tokenizer::Impl::encode_words(std::string_view text, WordCache& words) const {
    std::vector<int32_t> ids;
    while (!text.empty()) {
        const std::string_view word = text.substr(0, end_of_word(text));
        text.remove_prefix(word.size());
        if (const auto* known = words.find(word)) {
            ids.insert(ids.end(), known->begin(), known->end());
        } else {
            std::vector<int32_t> fresh = encode(word, false);
            ids.insert(ids.end(), fresh.begin(), fresh.end());
            words.add(word, std::move(fresh));
        }
    }
    return ids;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool dummy_prefix, WordCache* words) const {
    if (!words || !impl_->words_stand_alone) return impl_->encode(text, dummy_prefix);
    // The dummy prefix is a space in front of non-empty text.
    const bool prefix = dummy_prefix && impl_->without_prefix && !text.empty();
    return prefix ? impl_->encode_words(" " + std::string(text), *words) : impl_->encode_words(text, *words);
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
    for (const int32_t id : ids)
        if (id < 0 || id >= vocab_size())
            fail(Exit::data, "{}: cannot decode id {}: the model has {} pieces", impl_->path, id, vocab_size());
    std::string text;
    if (const auto status = impl_->processor.Decode(ids, &text); !status.ok())
        fail(Exit::data, "{}: SentencePiece cannot decode: {}", impl_->path, status.ToString());
    return text;
}

std::optional<int32_t> Tokenizer::piece_id(std::string_view piece) const {
    const int id = impl_->processor.PieceToId(piece);  // returns the unknown piece's id for pieces that do not exist
    if (id < 0 || id >= vocab_size() || impl_->processor.IdToPiece(id) != piece) return std::nullopt;
    return id;
}

std::string Tokenizer::piece(int32_t id) const {
    if (id < 0 || id >= vocab_size())
        fail(Exit::data, "{}: no piece {}: the model has {}", impl_->path, id, vocab_size());
    return impl_->processor.IdToPiece(id);
}

int32_t Tokenizer::vocab_size() const {
    return impl_->processor.GetPieceSize();
}
std::optional<int32_t> Tokenizer::bos() const {
    return if_any(impl_->processor.bos_id());
}
std::optional<int32_t> Tokenizer::eos() const {
    return if_any(impl_->processor.eos_id());
}
std::optional<int32_t> Tokenizer::pad() const {
    return if_any(impl_->processor.pad_id());
}
std::optional<int32_t> Tokenizer::unk() const {
    return if_any(impl_->processor.unk_id());
}
const std::string& Tokenizer::path() const {
    return impl_->path;
}
const std::string& Tokenizer::content_hash() const {
    return impl_->content_hash;
}

}  // namespace colonnade
