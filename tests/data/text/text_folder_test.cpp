#include "data/text/text_folder.h"

#include <sys/stat.h>

#include <sstream>

#include "tests/support/text_folder_file.h"

namespace colonnade {
namespace {

TEST_F(TextFolderFile, TokenizerJsonDecidesBesideAModel) {
    write_model();
    EXPECT_TRUE(read().tokenizer->path().ends_with("/tokenizer.model"));
    EXPECT_TRUE(read().notices.empty());
    write_tokenizer();
    EXPECT_TRUE(read().tokenizer->path().ends_with("/tokenizer.json"));
    EXPECT_EQ(notices(), folder_ + ": tokenizer.json decides the ids; tokenizer.model beside it is not used");
    EXPECT_TRUE(has_tokenizer(folder_));
    EXPECT_TRUE(has_tokenizer(path("tokenizer.json")));
    EXPECT_FALSE(has_tokenizer(path("nothing")));
}

TEST_F(TextFolderFile, FoldersWithoutATokenizer) {
    refuses(folder_ + ": contains neither tokenizer.json nor tokenizer.model; rows of token ids");
    for (const char* name : {"vocab.txt", "tiktoken.model", "qwen.tiktoken", "tekken.json", "vocab.json"}) {
        spill(path(name), "{}");
        refuses(fmt::format("nor tokenizer.model but {}; transformers writes a tokenizer.json from it: AutoTokenizer",
                            name));
    }
    EXPECT_FALSE(has_tokenizer(folder_));
    expect_error(Exit::data, path("nothing"), [&] { read_text_folder(path("nothing")); });
}

TEST_F(TextFolderFile, TokensOfTheConfigThatTokenizerJsonLacks) {
    write_tokenizer();
    const int32_t next = read().tokenizer->vocab_size();
    const std::string hash = read().tokenizer->content_hash();
    write("tokenizer_config.json",
          {{"added_tokens_decoder",
            {{std::to_string(next), {{"content", "<new>"}, {"special", true}, {"lstrip", true}}},
             {std::to_string(next + 1), {{"content", "word"}, {"single_word", true}}},
             {std::to_string(*read().tokenizer->piece_id("<s>")), {{"content", "<s>"}, {"special", true}}}}}});
    const auto tokenizer = read().tokenizer;
    EXPECT_EQ(tokenizer->vocab_size(), next + 2);
    EXPECT_EQ(tokenizer->piece_id("<new>"), next);
    EXPECT_TRUE(tokenizer->is_special(next));
    EXPECT_FALSE(tokenizer->is_special(next + 1));
    EXPECT_NE(tokenizer->content_hash(), hash) << "the added tokens decide ids";
    EXPECT_EQ(tokenizer->encode("  <new>", Spelled::token), std::vector<int32_t>{next}) << "lstrip";
    EXPECT_EQ(tokenizer->encode("word", Spelled::token), std::vector<int32_t>{next + 1});
    EXPECT_NE(tokenizer->encode("words", Spelled::token).front(), next + 1) << "single_word";
    // An id that the tokenizers package would not give is no id of this file.
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"4000", {{"content", "<new>"}}}}}});
    refuses(fmt::format("'<new>': id 4000: the tokenizers package would use {}", next));
}

TEST_F(TextFolderFile, AddedTokensOfASentencePieceModel) {
    write_model();
    const int32_t next = read().tokenizer->vocab_size();
    const std::string hash = read().tokenizer->content_hash();
    write("added_tokens.json", {{"<new>", next}, {"<s>", 1}});
    EXPECT_EQ(read().tokenizer->vocab_size(), next + 1);
    EXPECT_NE(read().tokenizer->content_hash(), hash);
    EXPECT_EQ(read().tokenizer->encode("<new>", Spelled::token), std::vector<int32_t>{next});
    EXPECT_EQ(read().tokenizer->decode({next}, SpecialTokens::keep), "<new>");
    EXPECT_FALSE(read().tokenizer->is_special(next));
    // The flags of added_tokens_decoder win over the bare list.
    write("tokenizer_config.json",
          {{"added_tokens_decoder", {{std::to_string(next), {{"content", "<new>"}, {"special", true}}}}}});
    EXPECT_TRUE(read().tokenizer->is_special(next));
    // A token cannot take the id of a piece.
    write("tokenizer_config.json", {{"added_tokens_decoder", {{"300", {{"content", "<other>"}}}}}});
    refuses("'<other>': id 300 belongs to the piece '");
}

TEST_F(TextFolderFile, MalformedFilesNameFileAndKey) {
    write_tokenizer();
    const auto config_refuses = [&](const Json& config, const std::string& part) {
        write("tokenizer_config.json", config);
        refuses(part);
        std::filesystem::remove(path("tokenizer_config.json"));
    };
    config_refuses(Json::array(), path("tokenizer_config.json") + ": expected an object, found array");
    config_refuses({{"bos_token", 7}}, "bos_token: expected a token, found 7");
    config_refuses({{"eos_token", {{"lstrip", true}}}}, "eos_token: expected a token, found {\"lstrip\":true}");
    config_refuses({{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}},
                   path("tokenizer_config.json") + ": added_tokens_decoder: 'x': expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"999999999999", {{"content", "a"}}}}}}, "expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"400", "a"}}}}, "'400': expected an id with a token");
    config_refuses({{"added_tokens_decoder", {{"400", {{"content", 7}}}}}}, "expected a token, found {\"content\":7}");
    config_refuses({{"chat_template", 7}},
                   path("tokenizer_config.json") + ": chat_template: expected a text, or a list");
    config_refuses({{"chat_template", {{{"name", "a"}}}}},
                   "chat_template: expected a text, or a list of {name, template}");
    spill(path("tokenizer_config.json"), "{\"a\": }");
    refuses(path("tokenizer_config.json") + ": column 7: invalid JSON");
    std::filesystem::remove(path("tokenizer_config.json"));
    write("special_tokens_map.json", "text");
    refuses(path("special_tokens_map.json") + ": expected an object, found string");
    std::filesystem::remove(path("special_tokens_map.json"));
    write("added_tokens.json", {{"<new>", "seven"}});
    refuses(path("added_tokens.json") + ": '<new>': expected an id, found \"seven\"");
    std::filesystem::remove(path("added_tokens.json"));
    write("generation_config.json", {{"eos_token_id", "</s>"}});
    refuses(path("generation_config.json") + ": eos_token_id: expected an id or a list of ids, found \"</s>\"");
    std::filesystem::remove(path("generation_config.json"));
    spill(path("chat_template.jinja"), std::string((1 << 20) + 1, 'x'));
    refuses(path("chat_template.jinja"));
    std::filesystem::remove(path("chat_template.jinja"));
    spill(path("tokenizer.json"), "[]");
    refuses(path("tokenizer.json"));
    spill(path("tokenizer.json"), "");
    refuses(path("tokenizer.json"));
    std::filesystem::remove(path("tokenizer.json"));
    spill(path("tokenizer.model"), "no model");
    refuses(path("tokenizer.model"));
}

/// A FIFO must not make anybody wait, and a file of somebody else must not get into an export.
TEST_F(TextFolderFile, RefusesFifosAndForeignLinks) {
    write_tokenizer();
    ASSERT_EQ(mkfifo(path("tokenizer_config.json").c_str(), 0600), 0);
    refuses(path("tokenizer_config.json") + ": is a FIFO (named pipe), expected a file");
    std::filesystem::remove(path("tokenizer_config.json"));
    const std::string secret = folder_ + "-secret";
    spill(secret, "{}");
    std::filesystem::create_directory(path("chat_templates"));
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
                             "merges.txt", "chat_template.jinja", "generation_config.json", "chat_templates/x.jinja"}) {
        std::filesystem::create_symlink(secret, path(name));
        refuses(fmt::format("{}: is a symbolic link to {}, which lies outside", path(name), secret));
        std::filesystem::remove(path(name));
    }
    std::filesystem::remove(path("tokenizer.json"));
    std::filesystem::create_symlink(secret, path("tokenizer.json"));
    refuses(path("tokenizer.json") + ": is a symbolic link to");
    std::filesystem::remove(secret);
}

TEST_F(TextFolderFile, RolesAreThoseOfTheConfigThenOfTheMap) {
    write_model();
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> </s> <pad> <unk>");
    write("special_tokens_map.json", {{"eos_token", "<|im_end|>"}, {"pad_token", {{"content", "<unk>"}}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> <|im_end|> <unk> <unk>");
    write("tokenizer_config.json",
          {{"bos_token", nullptr}, {"eos_token", {{"content", "<|eot_id|>"}, {"lstrip", false}}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "none <|eot_id|> <unk> <unk>");
    EXPECT_TRUE(read().tokenizer->document_prefix().empty()) << "no BOS, no prefix";
    EXPECT_TRUE(read().notices.empty());
    write("tokenizer_config.json", {{"pad_token", "[PAD]"}, {"additional_special_tokens", {"<|im_end|>", "<image>"}}});
    EXPECT_EQ(roles_of(*read().tokenizer), "<s> <|im_end|> none <unk>");
    EXPECT_EQ(notices(), folder_ + ": pad_token '[PAD]' is no token of the tokenizer; it is not used\n" + folder_ +
                             ": additional_special_tokens '<image>' is no token of the tokenizer; it is not used");
}

TEST_F(TextFolderFile, AddBosTokenDecidesThePrefix) {
    const Json without = {{"add_bos_token", false}, {"bos_token", "<s>"}, {"eos_token", "</s>"}};
    Json with = without;
    with["add_bos_token"] = true;
    const auto prefix = [&] {
        std::string text;
        const auto tokenizer = read().tokenizer;
        for (const int32_t id : tokenizer->document_prefix()) text += tokenizer->piece(id);
        return text;
    };
    write_model();
    EXPECT_EQ(prefix(), "<s>");
    write("tokenizer_config.json", without);
    EXPECT_EQ(prefix(), "");
    write("tokenizer_config.json", {{"add_bos_token", true}, {"bos_token", "<|im_start|>"}});
    EXPECT_EQ(prefix(), "<|im_start|>");
    std::filesystem::remove(path("tokenizer.model"));
    std::filesystem::remove(path("tokenizer_config.json"));
    write_tokenizer();
    EXPECT_EQ(prefix(), "");
    write("tokenizer_config.json", with);
    EXPECT_EQ(prefix(), "<s>");
    Json json = small_tokenizer_json({});
    const int32_t bos = *read().tokenizer->piece_id("<s>");
    json["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {bos}}, {"tokens", {"<s>"}}}}}}};
    spill(path("tokenizer.json"), json.dump());
    std::filesystem::remove(path("tokenizer_config.json"));
    EXPECT_EQ(prefix(), "<s>");
    write("tokenizer_config.json", without);
    EXPECT_EQ(prefix(), "");
}

TEST_F(TextFolderFile, WhichTemplateCounts) {
    write_tokenizer();
    EXPECT_EQ(templates(), "");
    write("tokenizer_config.json", {{"chat_template", "A"}});
    EXPECT_EQ(templates(), "default=A");
    write("tokenizer_config.json",
          {{"chat_template", {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}});
    EXPECT_EQ(templates(), "default=D tool_use=T");
    spill(path("chat_template.jinja"), "J");
    EXPECT_EQ(templates(), "default=J") << "the file wins over the config";
    std::filesystem::create_directory(path("chat_templates"));
    spill(path("chat_templates/rag.jinja"), "R");
    spill(path("chat_templates/notes.txt"), "N");
    spill(path("chat_templates/tool_use.jinja"), "U");
    EXPECT_EQ(templates(), "default=J rag=R tool_use=U");
    EXPECT_EQ(read().templates[1].file, path("chat_templates/rag.jinja"));
}

TEST_F(TextFolderFile, EndTokensOfTheModel) {
    write_tokenizer();
    write("config.json", {{"eos_token_id", 5}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{5});
    write("generation_config.json", {{"eos_token_id", {2, 7}}});
    EXPECT_EQ(read().end_ids, (std::vector<int32_t>{2, 7}));
    write("generation_config.json", {{"eos_token_id", nullptr}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{5});
    EXPECT_TRUE(read().notices.empty());
    write("generation_config.json", {{"eos_token_id", {2, 128009, -1}}});
    EXPECT_EQ(read().end_ids, std::vector<int32_t>{2});
    EXPECT_EQ(notices(),
              fmt::format("{}: eos_token_id {} is no token of the tokenizer; it is not used\n{}: eos_token_id {} is "
                          "no token of the tokenizer; it is not used",
                          path("generation_config.json"), 128009, path("generation_config.json"), -1));
}

TEST_F(TextFolderFile, ChoosesTheTemplate) {
    write_tokenizer();
    EXPECT_EQ(choose_template(read(), "auto", {})->source(), ChatTemplate::built_in("chatml")->source());
    EXPECT_FALSE(choose_template(read(), "auto", {})->is_of_model());
    write("tokenizer_config.json", {{"chat_template",
                                     {{{"name", "default"}, {"template", "D{{ bos_token }}"}},
                                      {{"name", "tool_use"}, {"template", "T"}},
                                      {{"name", "rag"}, {"template", "R"}}}}});
    EXPECT_EQ(chosen("auto"), "D<s>");
    EXPECT_EQ(chosen("auto", Json::array({1})), "T") << "chats with tools";
    EXPECT_EQ(chosen("rag"), "R");
    EXPECT_EQ(chosen("rag", Json::array({1})), "R");
    EXPECT_TRUE(choose_template(read(), "auto", {})->is_of_model());
    EXPECT_EQ(choose_template(read(), "rag", {})->name(), path("tokenizer_config.json") + " (rag)");
    EXPECT_TRUE(choose_template(read(), "llama3", {})->is_built_in());
    EXPECT_FALSE(choose_template(read(), "llama3", {})->is_of_model());
    EXPECT_EQ(chosen("X{{ bos_token }}"), "X<s>");
    EXPECT_EQ(chosen("X{% if true %}Y{% endif %}"), "XY");
    spill(path("mine.jinja"), "F{{ bos_token }}");
    EXPECT_EQ(chosen(path("mine.jinja")), "F<s>");
    EXPECT_EQ(choose_template(read(), path("mine.jinja"), {})->name(), path("mine.jinja"));
    expect_error(
        Exit::config,
        "chat_template 'no.jinja': no such file; expected auto (the model's own), one of plain, chatml, llama2, "
        "llama3, mistral, zephyr, gemma, a template of the model (default, tool_use, rag), a Jinja file, or Jinja text",
        [&] { chosen("no.jinja"); });
    expect_error(Exit::config, "in the config:1:5: the template ends", [&] { chosen("{{ x"); });
    expect_error(Exit::config, "no such file", [&] { chosen(folder_); });
    write("tokenizer_config.json", {{"chat_template", "{% nope %}"}});
    expect_error(Exit::config, path("tokenizer_config.json") + ":1:", [&] { chosen("auto"); });
}

// --- Added tokens ---

TokenAdditions additions_of(const Json& golden) {
    return {.roles = golden.at("roles").get<std::map<std::string, std::string>>(),
            .special = golden.at("special").get<std::vector<std::string>>(),
            .plain = golden.at("plain").get<std::vector<std::string>>()};
}

// transformers added the same tokens (tests/golden/make_added_tokens_golden.py).
TEST_F(TextFolderFile, AddedTokensAreThoseOfTransformers) {
    std::istringstream lines(slurp(golden_file("added_tokens_golden.jsonl")));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        const Json golden = parse_json(line, "golden");
        const std::string name = golden.at("tokenizer");
        SCOPED_TRACE(name);
        const TokenAdditions additions = additions_of(golden);
        const TextFolder text = read_text_folder(golden_file("tokenizers/" + name + "/tokenizer.json"), additions);
        EXPECT_EQ(text.tokenizer->vocab_size(), golden.at("size"));
        EXPECT_EQ(text.tokenizer->pad(), text.tokenizer->piece_id("<|pad|>"));
        EXPECT_EQ(text.tokenizer->eos(), text.tokenizer->piece_id("<|im_end|>"));
        for (size_t i = 0; i < golden.at("texts").size(); ++i) {
            const auto ids = text.tokenizer->encode(golden["texts"][i].get<std::string>(), Spelled::token);
            EXPECT_EQ(ids, golden["ids"][i].get<std::vector<int32_t>>()) << golden["texts"][i];
            EXPECT_EQ(text.tokenizer->decode(ids), golden["skip"][i].get<std::string>());
        }
    }
    EXPECT_EQ(count, 7);
}

TEST_F(TextFolderFile, AddedTokensThatExistKeepTheirIds) {
    write_tokenizer({.special = {"<|im_end|>"}});
    write("tokenizer_config.json", {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const TextFolder plain = read();
    const TextFolder text = read_text_folder(
        folder_, {.roles = {{"eos_token", "<|im_end|>"}, {"pad_token", "<new>"}}, .special = {"<new>", "<s>"}});
    EXPECT_EQ(text.added, std::vector<std::string>{"<new>"});
    EXPECT_EQ(text.tokenizer->vocab_size(), plain.tokenizer->vocab_size() + 1);
    EXPECT_EQ(roles_of(*text.tokenizer), "<s> <|im_end|> <new> none");
    EXPECT_NE(text.tokenizer->content_hash(), plain.tokenizer->content_hash());
    EXPECT_TRUE(read_text_folder(folder_, {.roles = {{"eos_token", "<|im_end|>"}}}).added.empty());
}

}  // namespace
}  // namespace colonnade
