#pragma once
// A folder of text files (data/text/text_folder.h) that a test writes, and what two tokenizers have in common.

#include "data/text/choose_template.h"
#include "data/text/text_folder.h"
#include "engine/io/files.h"
#include "tests/support/file_test.h"
#include "tests/support/gguf_file.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {

inline const char* const kTexts[] = {"",
                                     "x",
                                     " leading",
                                     "two  spaces\n\n\tand 123",
                                     "Größe 你好 👩‍👩‍👧",
                                     "a<s>b",
                                     "<s>",
                                     "</s> </s>",
                                     "<|im_start|>user\nHi<|im_end|>",
                                     "<new> x <new>",
                                     "ends ",
                                     "<|im_end|>\n",
                                     "\n\n\n\n",
                                     "[X]word[X]"};

class TextFolderFile : public FileTest {
  protected:
    void write(const std::string& name, const Json& json) const { spill(path(name), json.dump()); }
    /// A folder with the golden SentencePiece model.
    void write_model() const {
        std::filesystem::copy_file(golden_file("template_golden.model"), path("tokenizer.model"));
    }
    void write_tokenizer(const SmallTokenizer& wanted = {}) const {
        write("tokenizer.json", small_tokenizer_json(wanted));
    }
    TextFolder read() const { return read_text_folder(folder_); }
    std::string notices() const { return fmt::format("{}", fmt::join(read().notices, "\n")); }
    void refuses(const std::string& part) const {
        expect_error(Exit::data, part, [&] { read(); });
    }
    /// Names and first characters of the templates: "default=A tool_use=B".
    std::string templates() const {
        std::string text;
        for (const auto& found : read().templates) text += fmt::format("{}={} ", found.name, found.source.substr(0, 1));
        return text.empty() ? text : text.substr(0, text.size() - 1);
    }
    std::string chosen(const std::string& choice, const Json& tools = {}) const {
        const auto chat_template = choose_template(read(), choice, {});
        return chat_template->render({{"messages", Json::array()}, {"bos_token", "<s>"}}, !tools.is_null(), "here")
            .text.bytes();
    }
};

inline std::string piece_of(const Tokenizer& tokenizer, std::optional<int32_t> id) {
    return id ? tokenizer.piece(*id) : "none";
}
inline std::string roles_of(const Tokenizer& t) {
    return fmt::format("{} {} {} {}", piece_of(t, t.bos()), piece_of(t, t.eos()), piece_of(t, t.pad()),
                       piece_of(t, t.unk()));
}

/// Both give the same ids for documents, for text behind a token, and for spelled tokens.
inline void expect_same_ids(const Tokenizer& a, const Tokenizer& b) {
    EXPECT_EQ(a.document_prefix(), b.document_prefix());
    EXPECT_EQ(roles_of(a), roles_of(b));
    for (const std::string text : kTexts)
        for (const Spelled spelled : {Spelled::text, Spelled::token})
            for (const TextStart start : {TextStart::document, TextStart::behind_token})
                EXPECT_EQ(a.encode(text, spelled, start), b.encode(text, spelled, start))
                    << text << static_cast<int>(spelled) << static_cast<int>(start);
}

}  // namespace colonnade
