#include "data/text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "data/text/sentencepiece_check.h"
#include "engine/device/error.h"
#include "engine/io/files.h"
#include "engine/io/limits.h"
#include "engine/io/sha256.h"

namespace colonnade {

namespace {

constexpr size_t model_limit = limits::sentencepiece_bytes;

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
    const pid_t child = fork();
    if (child < 0) fail(Exit::memory, "{}: cannot start a process to test the model: {}", path, std::strerror(errno));
    if (child == 0) {
        std::signal(SIGALRM, SIG_DFL);
        alarm(limits::probe_seconds);
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

/// End of the first word of `text`: the first space that follows something other than a space.
size_t end_of_word(std::string_view text) {
    constexpr std::string_view escaped_space = "\xE2\x96\x81";
    for (size_t end = text.find(' ', 1); end != text.npos; end = text.find(' ', end + 1))
        if (text[end - 1] != ' ' && !text.substr(0, end).ends_with(escaped_space)) return end;
    return text.size();
}

}  // namespace

struct SentencePieceTokenizer::Model {
    sentencepiece::SentencePieceProcessor processor;
    /// The same model without the leading dummy space; null if `processor` adds none.
    std::unique_ptr<sentencepiece::SentencePieceProcessor> without_prefix;
    bool words_stand_alone = false;

    void encode(std::string_view text, bool dummy_prefix, std::vector<int32_t>& ids, const std::string& path) const;
    void encode_words(std::string_view text, std::vector<int32_t>& ids, WordCache& words,
                      const std::string& path) const;
};

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

SentencePieceTokenizer::SentencePieceTokenizer(const std::string& path, Options options)
    : model_(std::make_unique<Model>()), adds_bos_(options.adds_bos) {
    path_ = path;
    const std::string bytes = read_file(path, model_limit);
    content_hash_ = sha256(bytes);
    const std::optional<std::string> without_prefix = check_sentencepiece_model(bytes, path);
    probe_model(bytes, path);
    load_processor(model_->processor, bytes, path);
    if (without_prefix) {
        model_->without_prefix = std::make_unique<sentencepiece::SentencePieceProcessor>();
        load_processor(*model_->without_prefix, *without_prefix, path);
    }
    model_->words_stand_alone = words_stand_alone(bytes);
    token_by_id_.resize(static_cast<size_t>(model_->processor.GetPieceSize()));
    for (const SentencePieceSymbol& symbol : sentencepiece_symbols(bytes))
        add_token({.content = symbol.piece,
                   .decoded = {},
                   .id = symbol.id,
                   .special = symbol.control || looks_like_control(symbol.piece)});
    for (AddedToken& token : options.added) {
        const bool is_piece = token.id < model_->processor.GetPieceSize();
        if (is_piece && model_->processor.IdToPiece(token.id) != token.content)
            fail(Exit::data, "{}: the added token '{:.100}': id {} belongs to the piece '{:.100}'", path, token.content,
                 token.id, model_->processor.IdToPiece(token.id));
        content_hash_ = sha256(fmt::format("{} {} {} {}", content_hash_, token.id, token.special, token.content));
        add_token(std::move(token));
    }
    const auto& processor = model_->processor;
    set_roles({if_any(processor.bos_id()), if_any(processor.eos_id()), if_any(processor.pad_id()),
               if_any(processor.unk_id())});
}

void SentencePieceTokenizer::add_token(AddedToken token) {
    const auto id = static_cast<size_t>(token.id);
    if (id >= token_by_id_.size()) token_by_id_.resize(id + 1);
    token.decoded = token.content;
    tokens_.push_back(std::make_unique<AddedToken>(std::move(token)));
    if (token_by_id_[id])
        const_cast<AddedToken*>(token_by_id_[id])->special |= tokens_.back()->special;
    else
        token_by_id_[id] = tokens_.back().get();
    found_.add(tokens_.back()->content, token_by_id_[id]);
}

void SentencePieceTokenizer::set_roles(const RoleTokens& roles) {
    roles_ = roles;
    prefix_.clear();
    if (adds_bos_ && roles_.bos) prefix_.push_back(*roles_.bos);
}

SplitText SentencePieceTokenizer::split(std::string_view text, std::span<const Span> plain) const {
    SplitText result;
    std::vector<TextPart> parts;
    result.spelled_special = found_.split(text, plain, parts);
    for (const TextPart& part : parts)
        result.parts.push_back({{part.begin, part.end}, part.token ? part.token->id : -1, Spelled::text});
    return result;
}

/// Special symbols that are spelled in the text are cut behind their first byte, so that the model does not find them.
void SentencePieceTokenizer::encode_between(std::string_view text, TextStart start, Spelled spelled,
                                            std::vector<int32_t>& ids, TokenCache& cache) const {
    if (text.empty()) return;
    const bool prefix = start == TextStart::document;
    size_t begin = 0;
    if (spelled == Spelled::text) {
        std::vector<TextPart> parts;
        const std::span<const Span> nothing_is_plain;
        found_.split(text, nothing_is_plain, parts);
        for (const TextPart& part : parts) {
            const auto& processor = model_->processor;
            if (!part.token || !part.token->special || part.token->id >= processor.GetPieceSize() ||
                processor.IsControl(part.token->id))
                continue;
            model_->encode(text.substr(begin, part.begin + 1 - begin), prefix && begin == 0, ids, path_);
            begin = part.begin + 1;
        }
    }
    const std::string_view rest = text.substr(begin);
    const bool prefixed = prefix && begin == 0 && model_->without_prefix;
    if (!model_->words_stand_alone)
        model_->encode(rest, prefixed, ids, path_);
    else  // the dummy prefix is a space
        model_->encode_words(prefixed ? " " + std::string(rest) : rest, ids, cache.words, path_);
}

void SentencePieceTokenizer::Model::encode(std::string_view text, bool dummy_prefix, std::vector<int32_t>& ids,
                                           const std::string& path) const {
    const auto& chosen = dummy_prefix || !without_prefix ? processor : *without_prefix;
    std::vector<int32_t> fresh;
    if (const auto status = chosen.Encode(text, &fresh); !status.ok())
        fail(Exit::data, "{}: SentencePiece cannot encode: {}", path, status.ToString());
    const int32_t size = processor.GetPieceSize();
    for (const int32_t id : fresh)
        if (id < 0 || id >= size) fail(Exit::data, "{}: the model gives id {} with {} pieces", path, id, size);
    ids.insert(ids.end(), fresh.begin(), fresh.end());
}

void SentencePieceTokenizer::Model::encode_words(std::string_view text, std::vector<int32_t>& ids, WordCache& words,
                                                 const std::string& path) const {
    while (!text.empty()) {
        const std::string_view word = text.substr(0, end_of_word(text));
        text.remove_prefix(word.size());
        if (const auto* known = words.find(word)) {
            ids.insert(ids.end(), known->begin(), known->end());
        } else {
            std::vector<int32_t> fresh;
            encode(word, false, fresh, path);
            ids.insert(ids.end(), fresh.begin(), fresh.end());
            words.add(word, std::move(fresh));
        }
    }
}

std::string SentencePieceTokenizer::decode(const std::vector<int32_t>& ids, SpecialTokens special) const {
    std::string text;
    std::vector<int32_t> run;
    const auto flush = [&] {
        std::string part;
        if (const auto status = model_->processor.Decode(run, &part); !status.ok())
            fail(Exit::data, "{}: SentencePiece cannot decode: {}", path_, status.ToString());
        text += part;
        run.clear();
    };
    for (const int32_t id : ids) {
        if (id < 0 || id >= vocab_size())
            fail(Exit::data, "{}: cannot decode id {}: the model has {} pieces", path_, id, vocab_size());
        if (special == SpecialTokens::skip && is_special(id)) continue;
        const bool beyond = id >= model_->processor.GetPieceSize();
        if (!beyond && !model_->processor.IsControl(id)) {
            run.push_back(id);
            continue;
        }
        flush();
        text += piece(id);
    }
    flush();
    return text;
}

std::optional<int32_t> SentencePieceTokenizer::piece_id(std::string_view piece) const {
    for (const auto& token : tokens_)
        if (token->content == piece) return token->id;
    const auto& processor = model_->processor;
    const int id = processor.PieceToId(piece);  // returns the unknown piece's id for pieces that do not exist
    if (id < 0 || id >= processor.GetPieceSize() || processor.IdToPiece(id) != piece) return std::nullopt;
    return id;
}

std::string SentencePieceTokenizer::piece(int32_t id) const {
    if (id < 0 || id >= vocab_size()) fail(Exit::data, "{}: no piece {}: the model has {}", path_, id, vocab_size());
    if (id < model_->processor.GetPieceSize()) return model_->processor.IdToPiece(id);
    const AddedToken* token = token_by_id_[static_cast<size_t>(id)];
    if (!token) fail(Exit::data, "{}: no piece has id {}", path_, id);
    return token->content;
}

int32_t SentencePieceTokenizer::vocab_size() const {
    return static_cast<int32_t>(token_by_id_.size());
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
    return id >= 0 && id < vocab_size() && token_by_id_[static_cast<size_t>(id)] &&
           token_by_id_[static_cast<size_t>(id)]->special;
}

}  // namespace colonnade
