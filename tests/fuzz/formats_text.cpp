// What a model's folder says about text: tokenizers, their settings, chat templates, regular expressions.

#include <filesystem>

#include "data/samples/encode.h"
#include "data/text/choose_template.h"
#include "data/text/regex.h"
#include "data/text/text_folder.h"
#include "engine/io/files.h"
#include "tests/fuzz/formats.h"
#include "tests/support/chat_templates.h"
#include "tests/support/file_test.h"
#include "tests/support/small_tokenizer.h"

namespace colonnade {
namespace {

namespace fs = std::filesystem;

const char* const lines[] = {"Hello  world 123", "\xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80 </s><|im_end|>",
                             "\n\n\t x"};

std::vector<Message> chat_messages() {
    return {{"system", "Be brief", {}, {}},
            {"user", "Hi", {}, {}},
            {"assistant",
             "Yo",
             {},
             {{"reasoning_content", "r"},
              {"tool_calls",
               Json::array({{{"type", "function"}, {"function", {{"name", "f"}, {"arguments", {{"x", 1}}}}}}})}}},
            {"tool", "1", {}, {}},
            {"assistant", "Bye", {}, {}}};
}

void use_tokenizer(const Tokenizer& tokenizer) {
    TokenCache cache;
    for (const char* line : lines)
        (void)tokenizer.decode(tokenizer.encode(line, Spelled::text, TextStart::document, cache).ids,
                               SpecialTokens::keep);
}

/// Renders chats with and without tools; a refused chat is as good as a rendered one.
void render_chats(const std::shared_ptr<const ChatTemplate>& chat_template,
                  const std::shared_ptr<const Tokenizer>& tokenizer) {
    const ChatRenderer renderer(chat_template, tokenizer, {});
    const std::vector<Message> plain = {{"user", "Hi", {}, {}}, {"assistant", "Yo", {}, {}}}, full = chat_messages();
    const Json none, tools = {{"tools", Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}})}};
    try {
        (void)renderer.render({full, tools}, "here");
    } catch (const Error& e) {
        if (e.exit() == Exit::internal) throw;
    }
    (void)renderer.render({plain, none}, "here");
}

/// Reads a folder, uses it, and exports it to another one.
void read_text(const std::string& folder) {
    const TextFolder text = read_text_folder(folder);
    use_tokenizer(*text.tokenizer);
    const auto chat_template = choose_template(text, own_template, {});
    const std::string exported = folder + ".exported";
    fs::remove_all(exported);
    fs::create_directory(exported);
    (void)export_text(
        {.source = folder, .folder = exported, .tokenizer = text.tokenizer.get(), .chat_template = nullptr});
    (void)read_text_folder(exported);
    render_chats(chat_template, text.tokenizer);
}

std::vector<std::string> template_sources() {
    std::vector<std::string> sources = {kQwenLike};
    for (const std::string& name : chat_template_names()) sources.push_back(ChatTemplate::built_in(name)->source());
    const std::string golden = slurp(golden_file("jinja_golden.jsonl"));
    for (size_t at = 0; at < golden.size(); at = golden.find('\n', at) + 1)
        sources.push_back(parse_json(golden.substr(at, golden.find('\n', at) - at), "golden")["template"]);
    return sources;
}

Format template_format(const std::string&) {
    Format format;
    format.file = "chat_template.jinja";
    format.seeds = template_sources();
    format.words = {"{{",
                    "}}",
                    "{%",
                    "%}",
                    "{%-",
                    "-%}",
                    "for",
                    "in",
                    "if",
                    "elif",
                    "else",
                    "endif",
                    "endfor",
                    "set",
                    "macro",
                    "endmacro",
                    "namespace",
                    "loop",
                    "messages",
                    "message",
                    "content",
                    "role",
                    "tools",
                    "|",
                    "tojson",
                    "trim",
                    "length",
                    "join",
                    "is defined",
                    "not",
                    "and",
                    "or",
                    "[0]",
                    "[-1]",
                    "[::-1]",
                    "range(9999999)",
                    "*",
                    "**",
                    "~",
                    "//",
                    "%",
                    "-1",
                    "9223372036854775807",
                    "1e308",
                    "''",
                    "none",
                    "split",
                    "replace",
                    "strftime_now",
                    "raise_exception",
                    "generation",
                    "endgeneration",
                    "break",
                    "continue",
                    "filter",
                    "select",
                    "map",
                    "sort",
                    "dictsort",
                    "batch(2)",
                    "indent(4)",
                    "center(80)",
                    "format",
                    "items()",
                    "(",
                    ")",
                    "{#",
                    "#}"};
    format.read = [](const auto&, const auto& file) {
        static const auto tokenizer = Tokenizer::load(golden_file("template_golden.model"));
        render_chats(std::make_shared<const ChatTemplate>("mutated", read_file(file), "", ChatTemplate::Settings{}),
                     tokenizer);
    };
    return format;
}

Format regex_format(const std::string&) {
    Format format;
    format.file = "pattern.txt";
    const std::string golden = slurp(golden_file("regex_golden.jsonl"));
    std::string last;
    for (size_t at = 0; at < golden.size(); at = golden.find('\n', at) + 1) {
        const std::string pattern = parse_json(golden.substr(at, golden.find('\n', at) - at), "golden")["pattern"];
        if (pattern != last) format.seeds.push_back(pattern);
        last = pattern;
    }
    for (const std::string_view known : {gpt2_pattern, llama3_pattern, qwen2_pattern, gpt4o_pattern, tekken_pattern})
        format.seeds.emplace_back(known);
    format.words = {"(?i:",   "(?=", "(?!",         "(?<=",    "(?<!",        "(?>",     "(?:",    "(",     ")",
                    "[",      "]",   "[^",          "&&",      "\\p{L}",      "\\P{^N}", "\\s",    "\\S",   "\\h",
                    "\\R",    "\\X", "\\G",         "\\K",     "\\b",         "\\1",     "\\k<a>", "(?<a>", "{1,3}",
                    "{1000}", "*",   "+",           "?",       "*+",          "??",      "|",      "^",     "$",
                    "\\z",    ".",   "\\x{110000}", "\\u00e9", "[[:alpha:]]", "-",       "\\"};
    format.read = [](const auto&, const auto& file) {
        const Regex regex(read_file(file), "pattern");
        std::vector<Piece> pieces;
        regex.find(std::string(lines[0]) + lines[1] + lines[2], 0, pieces);
        regex.find(std::string(300, 'a') + "b " + std::string(100, '\n'), 0, pieces);
        (void)regex.replace("Hello  world 123", "_");
    };
    return format;
}

/// A format of one JSON file of a folder with a tokenizer.
Format folder_format(const std::string& scratch, const std::string& file, std::vector<std::string> seeds) {
    spill(scratch + "/tokenizer.json", small_tokenizer_json({.special = {"<|im_start|>", "<|im_end|>"}}).dump());
    return {.file = file,
            .seeds = std::move(seeds),
            .read = [](const auto& folder, const auto&) { read_text(folder); },
            .structure = json_mutation(),
            .beside = scratch};
}

std::string tokenizer_config() {
    return Json{{"add_bos_token", true},
                {"bos_token", "<s>"},
                {"eos_token", {{"content", "</s>"}, {"special", true}}},
                {"pad_token", "<pad>"},
                {"unk_token", nullptr},
                {"added_tokens_decoder",
                 {{"900", {{"content", "<new>"}, {"special", false}, {"lstrip", true}, {"normalized", false}}}}},
                {"chat_template", Json::array({{{"name", "default"}, {"template", kQwenLike}},
                                               {{"name", "tool_use"}, {"template", "{{ tools | tojson }}"}}})},
                {"clean_up_tokenization_spaces", false},
                {"model_max_length", 2048},
                {"tokenizer_class", "PreTrainedTokenizerFast"}}
        .dump();
}

Format sentencepiece_format(const std::string&) {
    return {.file = "tokenizer.model",
            .seeds = {slurp(golden_file("template_golden.model"))},
            .read = [](const auto& folder, const auto&) { read_text(folder); }};
}

}  // namespace

std::vector<NamedFormat> text_formats_of_models() {
    const auto in_folder = [](const std::string& file, std::vector<std::string> seeds) {
        return [file, seeds](const std::string& scratch) { return folder_format(scratch, file, seeds); };
    };
    return {
        {"tokenizer",
         [](const auto&) {
             return Format{
                 .file = "tokenizer.json",
                 .seeds = golden_contents("tokenizers", "tokenizer.json"),
                 .read = [](const auto& folder, const auto&) { use_tokenizer(*read_text_folder(folder).tokenizer); },
                 .structure = json_mutation()};
         }},
        {"sentencepiece", sentencepiece_format},
        {"tokenizer_config", in_folder("tokenizer_config.json", {tokenizer_config(), "{}"})},
        {"special_tokens_map",
         in_folder(
             "special_tokens_map.json",
             {R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "additional_special_tokens": ["<|im_start|>", {"content": "<|im_end|>"}]})"})},
        {"added_tokens", in_folder("added_tokens.json", {R"({"<new>": 900, "<|im_end|>": 901, "</s>": 2})"})},
        {"generation_config",
         in_folder(
             "generation_config.json",
             {R"({"eos_token_id": [1, 2], "bos_token_id": 1, "temperature": 0.7, "top_k": 50, "do_sample": true})",
              R"({"eos_token_id": 2})"})},
        {"template", template_format, 8},
        {"regex", regex_format, 40},
    };
}

}  // namespace colonnade
