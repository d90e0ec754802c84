#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>

#include "data/text/jinja/template.h"
#include "tests/support/expect_error.h"
#include "tests/support/paths.h"

namespace colonnade::jinja {
namespace {

using Json = nlohmann::ordered_json;

RenderOptions at_fixed_date() {
    RenderOptions options;
    options.clock = Clock{2025, 3, 4, 5, 6, 7};
    return options;
}

std::string text_of(const std::string& source, const Json& variables = Json::object()) {
    return Template(source, "t").render(variables, at_fixed_date()).text.bytes();
}

/// Byte offsets from offsets of code points.
std::vector<Span> in_bytes(const Json& spans, const std::string& text) {
    std::vector<Span> result;
    for (const auto& span : spans)
        if (span[0] != span[1])
            result.push_back(
                {byte_of_character(text, span[0].get<size_t>()), byte_of_character(text, span[1].get<size_t>())});
    return result;
}

/// Runs cover the text, and bytes of input without escapes equal their source.
void check_runs(const Rendered& rendered) {
    size_t begin = 0;
    for (const auto& run : rendered.text.runs()) {
        EXPECT_LT(begin, run.end);
        EXPECT_LT(run.mark.origin, rendered.origins.size());
        begin = run.end;
    }
    EXPECT_EQ(begin, rendered.text.size());
}

/// Parts of a turn are in order and inside the turn.
void check_turns(const Rendered& rendered, const Json& messages) {
    for (const Turn& turn : assistant_turns(rendered, messages, {"<|im_start|>assistant\n", {"<|im_end|>"}})) {
        EXPECT_LE(turn.whole.end, rendered.text.size());
        for (const auto* part : {&turn.content, &turn.thinking, &turn.tool_calls}) {
            size_t last = turn.whole.begin;
            for (const Span& span : *part) {
                EXPECT_LE(last, span.begin);
                EXPECT_LT(span.begin, span.end);
                last = span.end;
            }
            EXPECT_LE(last, turn.whole.end);
        }
    }
}

TEST(Jinja, GoldenTemplatesOfJinja2) {
    std::ifstream file(golden_file("jinja_golden.jsonl"));
    size_t lines = 0;
    for (std::string line; std::getline(file, line); ++lines) {
        const Json golden = Json::parse(line);
        const std::string source = golden["template"];
        SCOPED_TRACE(source);
        if (golden.contains("error")) {
            expect_error(Exit::data, "t:1:", [&] { text_of(source, golden["variables"]); });
            continue;
        }
        try {
            const Rendered rendered = Template(source, "t").render(golden["variables"], at_fixed_date());
            EXPECT_EQ(rendered.text.bytes(), golden["text"].get<std::string>());
            std::vector<Span> spans;
            for (const auto& span : golden["spans"]) spans.push_back({span[0].get<size_t>(), span[1].get<size_t>()});
            EXPECT_EQ(rendered.generation, spans);
            check_runs(rendered);
        } catch (const Error& e) {
            ADD_FAILURE() << e.what();
        }
    }
    EXPECT_GT(lines, 100u);
}

/// Real templates: a folder with templates.json ({name: source}) and chat_golden.jsonl, with lines of {template, chat,
/// context, text or error, spans in code points}.
TEST(Jinja, RendersOfRealTemplates) {
    const char* folder = std::getenv("COLONNADE_CHAT_ORACLES");
    if (folder == nullptr) GTEST_SKIP() << "COLONNADE_CHAT_ORACLES names no folder";
    std::ifstream sources_file(std::string(folder) + "/templates.json");
    const Json sources = Json::parse(sources_file);
    std::map<std::string, Template> templates;
    for (const auto& [name, source] : sources.items())
        templates.emplace(name, Template(source.get<std::string>(), name));
    std::ifstream file(std::string(folder) + "/chat_golden.jsonl");
    size_t equal = 0, refused = 0, spans_equal = 0, spans_all = 0, bytes = 0, bad = 0;
    double seconds = 0;
    for (std::string line; std::getline(file, line);) {
        const Json golden = Json::parse(line);
        const std::string name = golden["template"];
        const std::string label = name + " " + golden["chat"].get<std::string>();
        std::string found;
        try {
            const auto start = std::chrono::steady_clock::now();
            const Rendered rendered = templates.at(name).render(golden["context"], at_fixed_date());
            seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            const std::string& text = rendered.text.bytes();
            bytes += text.size();
            check_runs(rendered);
            check_turns(rendered, golden["context"]["messages"]);
            if (golden.contains("text") && text == golden["text"].get_ref<const std::string&>()) {
                ++equal;
                if (!golden.contains("spans")) continue;
                ++spans_all;
                spans_equal += rendered.generation == in_bytes(golden["spans"], text) ? 1 : 0;
                if (rendered.generation != in_bytes(golden["spans"], text))
                    std::printf("spans differ: %s\n", label.c_str());
                continue;
            }
            found = text;
        } catch (const Error& e) {
            if (golden.contains("error")) {
                ++refused;
                continue;
            }
            found = e.what();
        }
        if (++bad <= 30)
            ADD_FAILURE() << label << "\nfound    " << found << "\nexpected " << golden.value("text", "")
                          << golden.value("error", "");
    }
    std::printf("%zu equal, %zu refused, %zu differ; spans of %zu of %zu equal; %.1f us a render, %.1f MB/s\n", equal,
                refused, bad, spans_equal, spans_all, seconds * 1e6 / static_cast<double>(equal),
                static_cast<double>(bytes) / seconds / 1e6);
    EXPECT_EQ(bad, 0u);
}

const char* const kChat = R"({"messages": [{"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": " yes ", "reasoning_content": "hm", "tool_calls": [{"name": "f", "arguments": {"a": "x\ny"}},
     {"name": "g", "arguments": {}}]}, {"role": "user", "content": "and"}, {"role": "assistant", "content": "no"}]})";
const char* const kTemplate =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content "
    "}}</think>{% endif %}\n"
    "{{- m.content | trim }}{% for c in m.tool_calls %}<call>{\"name\": \"{{ c.name }}\", {{ c.arguments | tojson "
    "}}}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}";

TEST(Jinja, TellsWhereEachByteCameFrom) {
    const Rendered rendered = Template(kTemplate, "t").render(Json::parse(kChat));
    std::string drawn;
    size_t begin = 0;
    for (const auto& run : rendered.text.runs()) {
        const Origin& origin = rendered.origin(run);
        if (origin.input && origin.message == 1)
            drawn += rendered.path(run.mark.origin) + "=" + rendered.text.bytes().substr(begin, run.end - begin) + ";";
        begin = run.end;
    }
    EXPECT_EQ(drawn,
              "messages[1].role=assistant;messages[1].reasoning_content=hm;messages[1].content=yes;messages[1].tool_"
              "calls[0].name=f;"
              "messages[1].tool_calls[0].arguments={;messages[1].tool_calls[0].arguments.a=\"a\";messages[1].tool_"
              "calls[0].arguments=: ;"
              "messages[1].tool_calls[0].arguments.a=\"x\\ny\";messages[1].tool_calls[0].arguments=};messages[1].tool_"
              "calls[1].name=g;"
              "messages[1].tool_calls[1].arguments={};");
}

TEST(Jinja, GivesTheTurnsOfTheAssistant) {
    const Json chat = Json::parse(kChat);
    const Rendered rendered = Template(kTemplate, "t").render(chat);
    const auto cut = [&](Span span) { return rendered.text.bytes().substr(span.begin, span.end - span.begin); };
    const std::vector<Turn> turns =
        assistant_turns(rendered, chat["messages"], {"<|im_start|>assistant\n", {"<|im_end|>", "</s>"}});
    ASSERT_EQ(turns.size(), 2u);
    EXPECT_EQ(turns[0].message, 1u);
    EXPECT_EQ(cut(turns[0].whole),
              "<think>hm</think>yes<call>{\"name\": \"f\", {\"a\": \"x\\ny\"}}</call><call>{\"name\": \"g\", "
              "{}}</call><|im_end|>");
    ASSERT_EQ(turns[0].thinking.size(), 1u);
    EXPECT_EQ(cut(turns[0].thinking[0]), "hm");
    ASSERT_EQ(turns[0].content.size(), 1u);
    EXPECT_EQ(cut(turns[0].content[0]), "yes");
    ASSERT_EQ(turns[0].tool_calls.size(), 2u);
    EXPECT_EQ(cut(turns[0].tool_calls[0]), "f\", {\"a\": \"x\\ny\"}");
    EXPECT_EQ(cut(turns[1].whole), "no<|im_end|>");
    // Without a header, a turn begins with what the template writes for it; without markers, it ends at the last byte
    // of input.
    EXPECT_EQ(cut(assistant_turns(rendered, chat["messages"], {})[1].whole), "<|im_start|>assistant\nno");
    EXPECT_TRUE(cut(assistant_turns(rendered, chat["messages"], {})[0].whole).starts_with("<|im_start|>assistant\n"));
    // An empty answer still ends.
    Json empty = chat;
    empty["messages"].push_back({{"role", "assistant"}, {"content", ""}});
    const Rendered with_empty = Template(kTemplate, "t").render(empty);
    const std::vector<Turn> three =
        assistant_turns(with_empty, empty["messages"], {"<|im_start|>assistant\n", {"<|im_end|>", "</s>"}});
    ASSERT_EQ(three.size(), 3u);
    EXPECT_EQ(with_empty.text.bytes().substr(three[2].whole.begin, three[2].whole.size()), "<|im_end|>");
}

TEST(Jinja, PreparesVariablesAsTransformersDoes) {
    const Json prepared =
        chat_variables(Json::parse(R"({"messages": [{"role": "a", "content": null}], "tools": [1]})"));
    EXPECT_EQ(prepared.dump(),
              R"({"messages":[{"role":"a"}],"tools":[1],"documents":null,"add_generation_prompt":false})");
}

TEST(Jinja, MarksGenerationInsideMacros) {
    const Rendered rendered =
        Template("{% macro m(x) %}  <{% generation %}{{ x }}{% endgeneration %}>{% endmacro %}é{{ m('ab') | trim }}",
                 "t")
            .render(Json::object());
    EXPECT_EQ(rendered.text.bytes(), "é<ab>");
    EXPECT_EQ(rendered.generation, (std::vector<Span>{{3, 5}}));
}

TEST(Jinja, RefusesWhatItDoesNotKnowByName) {
    const std::pair<const char*, const char*> parsing[] = {
        {"a\n {% include 'x' %}", "t:2:2: the statement {% include %} is not supported"},
        {"{% call m() %}{% endcall %}", "the statement {% call %} is not supported"},
        {"{% raw %}{% endraw %}", "the statement {% raw %} is not supported"},
        {"{% for x in y recursive %}{% endfor %}", "recursive loops are not supported"},
        {"{{ 2 ** 3 }}", "the operator ** is not supported"},
        {"{{ f(*x) }}", "arguments unpacked with '*' are not supported"},
        {"{% if x %}", "the template ends before {% endif %}"},
        {"{% break %}", "{% break %} outside a loop"},
        {"{{ 'a", "t:1:4: a string without its end"},
        {"{{ a", "the template ends inside a tag"},
        {"{# a", "a comment without #}"},
        {"{{ a ] }}", "']' closes nothing"},
        {"{{ a b }}", "expected }}, found 'b'"},
        {"{{ }}", "expected an expression, found }}"},
        {"{{ 99999999999999999999 }}", "exceeds 64 bits"},
        {"{{ 1e999 }}", "the number 1e999 exceeds 64 bits"},
        {"{{ dict(a=1, a=2) }}", "argument 'a' is given twice"},
        {"{% macro m(a, a) %}{% endmacro %}", "parameter 'a' is listed twice"},
        {"a\xFFz", "t: ill-formed UTF-8 at byte 1"},
        {"{% if x %}{% endfor %}", "the statement {% endfor %} is not supported"},
        {"{% endif %}", "the statement {% endif %} is not supported"},
    };
    for (const auto& [source, message] : parsing) expect_error(Exit::config, message, [&] { text_of(source); });
    const std::pair<const char*, const char*> rendering[] = {
        {"a\n  {{ 1 | nope }}", "t:2:8: the filter 'nope' is not supported"},
        {"{{ 1 is nope }}", "the test 'nope' is not supported"},
        {"{{ 'a'.zfill(3) }}", "the method str.zfill() is not supported"},
        {"{{ 'a'.split('b', foo=1) }}", "takes no argument named 'foo'"},
        {"{{ [1].append(2) }}", "list.append() would change a value"},
        {"{{ {}.update({}) }}", "dict.update() would change a value"},
        {"{{ cycler(1) }}", "the global 'cycler' is not supported"},
        {"{{ u.v }}", "'u' is undefined"},
        {"{{ {}.v.w }}", "'dict object' has no attribute 'v'"},
        {"{{ '%s' % 1 }}", "formatting with % is not supported"},
        {"{{ raise_exception('bad\nchat') }}", "the template refuses the chat: bad chat"},
        {"{{ strftime_now('%Q') }}", "strftime_now: %Q is not supported"},
        {"{{ 9223372036854775807 + 1 }}", "an integer beyond 64 bits"},
        {"{{ 1 // 0 }}", "integer division by zero"},
        {"{{ '99999999999999999999' | int }}", "the number 99999999999999999999 exceeds 64 bits"},
        {"{{ '1e300' | int }}", "int: 1e+300 exceeds 64 bits"},
        {"{{ '1e999' | float }}", "the number 1e999 exceeds 64 bits"},
    };
    for (const auto& [source, message] : rendering) expect_error(Exit::data, message, [&] { text_of(source); });
    expect_error(Exit::data, "strftime_now needs a fixed date",
                 [] { Template("{{ strftime_now('%Y') }}", "t").render(Json::object()); });
    for (const Clock date : {Clock{2025, 2, 29}, Clock{2025, 13, 1}, Clock{-5, 1, 1}, Clock{2025, 1, 1, 24}})
        expect_error(Exit::data, "the date of strftime_now is no date", [&] {
            Template("{{ strftime_now('%A') }}", "t").render(Json::object(), {.clock = date, .limits = {}});
        });
    EXPECT_EQ(Template("{% if false %}{{ 1 | from_json }}{% endif %}", "t").find_unsupported(),
              std::vector<std::string>{"t:1:20: the filter 'from_json' is not supported"});
}

TEST(Jinja, BoundsHostileTemplates) {
    const std::string many_parentheses = "{{ " + std::string(100000, '(') + std::string(100000, ')') + " }}";
    expect_error(Exit::config, "nested deeper", [&] { text_of(many_parentheses); });
    std::string chain = "{{ 1";
    for (int i = 0; i < 100000; ++i) chain += " + 1";
    expect_error(Exit::config, "nested deeper", [&] { text_of(chain + " }}"); });
    std::string blocks;
    for (int i = 0; i < 100000; ++i) blocks += "{% if x %}";
    expect_error(Exit::config, "nested deeper", [&] { text_of(blocks); });
    expect_error(Exit::config, "a template of 2000000 bytes", [&] { text_of(std::string(2'000'000, 'x')); });
    const std::pair<const char*, const char*> cases[] = {
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "an endless recursion"},
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% "
         "endfor %}",
         "an endless template"},
        {"{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
         "a text of more than"},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
         "values of more than"},
        {"{{ [1] * 3000000 }}", "values of more than"},
        {"{{ 'x\\\\'"
         " | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson"
         " | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson"
         " | tojson | tojson | tojson | tojson }}",
         "a text of more than"},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
         "nested deeper than"},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
         "a text of more than"},
        {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == "
         "ns.x }}",
         ""},
        {"{{ 'abc' * 99999999999 }}", "is too long"},
        {"{{ range(99999999) }}", "a range of more than"},
        {"{{ {} | tojson(indent=99999999999) }}", "an indent of more than"},
    };
    for (const auto& [source, message] : cases) expect_error(Exit::data, message, [&] { text_of(source); });
    std::string parameters = "a";
    for (int i = 0; i < 9999; ++i) parameters += fmt::format(", a{}", i);
    expect_error(Exit::data, "an endless template", [&] {
        text_of("{% macro m(" + parameters + ") %}{% endmacro %}{% for i in range(99999) %}{{ m() }}{% endfor %}");
    });
    // A namespace that holds itself is freed.
    EXPECT_EQ(text_of("{% set ns = namespace() %}{% set ns.x = ns %}{% set ns.y = [ns] %}ok"), "ok");
}

/// What is long may not take more memory or time than its steps say.
TEST(Jinja, BoundsHugeTexts) {
    const std::string x = "{% set x = 'a' * 16000000 %}";
    const std::pair<const char*, const char*> cases[] = {
        {"{{ x.split('a') | length }}", "an endless template"},
        {"{{ x.rsplit('a') | length }}", "an endless template"},
        {"{{ ('\n' * 16000000).splitlines() | length }}", "an endless template"},
        {"{{ x | list | length }}", "an endless template"},
        {"{{ x.join([''] * 1000) }}", "a text of more than"},
        {"{{ ([''] * 1000) | join(x) }}", "a text of more than"},
        {"{{ 'a' | indent(x) }}", "an indent of more than"},
        {"{{ [1] | tojson(indent=x) }}", "an indent of more than"},
        {"{{ ([1] * 1000) | tojson(separators=(x, x)) }}", "a text of more than"},
        {"{% for i in range(99999) %}{{ x[5] }}{% endfor %}", "an endless template"},
        {"{% for i in range(99999) %}{{ x[:1] }}{% endfor %}", "an endless template"},
        {"{{ (x ~ 'b').startswith((x ~ 'c',) * 100000) }}", "an endless template"},
        {"{{ ([x ~ 'b', x ~ 'a'] * 9999) | sort(case_sensitive=true) }}", "an endless template"},
        {"{% for i in range(99999) %}{% set y = x | replace('a', '') %}{% endfor %}", "an endless template"},
    };
    RenderOptions options;
    options.limits.steps = 4'000'000;
    for (const auto& [source, message] : cases)
        expect_error(Exit::data, message, [&] { Template(x + source, "t").render(Json::object(), options); });
    EXPECT_EQ(text_of(x + "{{ (x[:7000000] ~ 'b') in x }}{{ x.find(x[1:] ~ 'b') }}"), "False-1");
    EXPECT_EQ(text_of(x + "{{ x.strip('b' * 10000000 ~ 'a') }}"), "");
}

/// Values that hold loops and methods are values in values, too: freeing them is a recursion.
TEST(Jinja, BoundsChainsOfValues) {
    const std::string loops = "{% set n = namespace(p=0) %}{% for i in range(9999) %}";
    for (const char* body :
         {"{% for x in [n.p] %}{% set n.p = loop %}{% endfor %}", "{% set n.p = {'a': n.p}.items %}"})
        expect_error(Exit::data, "values nested deeper than", [&] { text_of(loops + body + "{% endfor %}"); });
}

TEST(Jinja, RendersLongChats) {
    Json chat = {{"messages", Json::array()}};
    for (int i = 0; i < 4000; ++i)
        chat["messages"].push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(1000, 'x')}});
    EXPECT_GT(text_of(kTemplate, chat).size(), 4'000'000u);
}

TEST(Jinja, KnowsTemplatesThatReadForward) {
    const auto reads_forward = [](const std::string& source) { return Template(source, "t").reads_forward(); };
    const std::string loop = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}";
    for (const std::string& source : std::initializer_list<std::string>{
             loop,
             "no messages",  //
             "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}" + loop,
             "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.previtem }}{% endfor %}",
             "{% for m in messages %}{% for c in m.calls %}{{ loop.last }}{% endfor %}{% endfor %}",
             "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages "
             "%}{% endif %}{% for m in rest if m.content %}{{ m.content }}{% endfor %}",
             "{% set rest = messages[1:] if messages[0].a else messages %}{% for m in rest %}{{ m }}{% endfor %}",
             "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{% endfor %}",
             "{% macro show(m) %}{{ m.content }}{% endmacro %}{% for m in messages %}{{ show(m) }}{% endfor %}",
         })
        EXPECT_TRUE(reads_forward(source)) << source;
    for (const std::string& source : std::initializer_list<std::string>{
             loop + loop,  //
             "{% for m in messages %}{% if loop.last %}x{% endif %}{% endfor %}",
             "{% for m in messages %}{{ loop.nextitem }}{% endfor %}",
             "{% for m in messages %}{% set l = loop %}{{ l.last }}{% endfor %}",
             "{% for m in messages %}{{ messages[loop.index] }}{% endfor %}",
             "{% for m in messages[::-1] %}{{ m }}{% endfor %}",
             "{% for m in messages[:-1] %}{{ m }}{% endfor %}",
             "{% for m in messages | reverse %}{{ m }}{% endfor %}",
             "{{ messages | length }}" + loop,
             "{{ messages[-1].content }}" + loop,
             "{{ messages[1].content }}" + loop,
             "{% set rest = messages[1:] %}{{ rest[0] }}" + loop,
             "{% set messages = messages[1:] %}{{ messages[0].content }}" + loop,
             "{% set rest = messages %}{{ rest | length }}" + loop,
             "{% set text %}" + loop + "{% endset %}{{ text | trim }}",
             "{% filter trim %}" + loop + "{% endfilter %}",
             "{% macro all() %}" + loop + "{% endmacro %}{{ all() }}",
             "{% for i in range(2) %}" + loop + "{% endfor %}",
             "{% set ns = namespace(m=messages) %}{{ ns.m | length }}",
             "{% for messages in messages %}{{ messages }}{% endfor %}",
             "{% set messages = other %}{% for m in messages %}{{ m }}{% endfor %}",
         })
        EXPECT_FALSE(reads_forward(source)) << source;
}

}  // namespace
}  // namespace colonnade::jinja
