#include "data/samples/encode.h"

#include <algorithm>

#include "data/samples/turn_markers.h"
#include "data/text/tokenizer_training.h"
#include "engine/io/json.h"
#include "tests/support/file_test.h"
#include "tests/support/flat_sample.h"
#include "tests/support/paths.h"

namespace colonnade {
namespace {

/// The tokenizer of the golden chats: a tiny BPE model with the markers of ChatML, Llama-3 and Gemma.
std::shared_ptr<const Tokenizer> tokenizer() {
    static const auto loaded = Tokenizer::load(golden_file("template_golden.model"));
    return loaded;
}

Row chat_row(const std::vector<Message>& messages) {
    Row row;
    row.messages = messages;
    return row;
}
Row text_row(const std::string& text) {
    Row row;
    row.completion = text;
    return row;
}
Row prompt_row(const std::string& prompt, const std::string& completion) {
    Row row = text_row(completion);
    row.prompt = prompt;
    return row;
}
Row token_row(const std::vector<int32_t>& ids, const std::vector<int32_t>& labels) {
    Row row;
    row.input_ids = ids;
    row.labels = labels;
    return row;
}

/// The sample's pieces, trained ones in braces: "<s> [INST] {▁A </s>}" without the spaces.
std::string shown(const Sample& of) {
    const FlatSample sample = flat(of);
    std::string text;
    bool open = false;
    for (size_t i = 0; i < sample.tokens.size(); ++i) {
        if ((sample.weights[i] > 0) != open) text += open ? "}" : "{";
        open = sample.weights[i] > 0;
        const std::string piece = tokenizer()->piece(sample.tokens[i]);
        const bool is_byte = piece.size() == 6 && piece.starts_with("<0x");
        text += is_byte ? std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16))) : piece;
    }
    text += open ? "}" : "";
    for (size_t at; (at = text.find("\u2581")) != std::string::npos;) text.replace(at, 3, 1, ' ');
    return text;
}

std::string encoded(const Row& row, const EncodeOptions& options) {
    return shown(Encoder(tokenizer(), options).encode(row, "here").sample);
}

const std::vector<Message> kChat = {
    {"system", "S", {}}, {"user", "U", {}}, {"assistant", "A", {}}, {"user", "V", {}}, {"assistant", "B", {}}};

/// The same templates through transformers' LlamaTokenizer: ids of the chat and of the prompt, and the assistant mask.
TEST(Encode, MatchesTransformers) {
    const Json cases = read_json_file(golden_file("template_golden.json"));
    ASSERT_EQ(cases.size(), 42u);
    for (const Json& golden : cases) {
        EncodeOptions options;
        options.chat_template = ChatTemplate::built_in(golden["template"]);
        const Encoder encoder(tokenizer(), options);
        std::vector<Message> messages;
        for (const Json& message : golden["messages"]) messages.push_back({message["role"], message["content"], {}});
        const Encoded result = encoder.encode(chat_row(messages), "here");
        EXPECT_EQ(flat(result.sample).tokens, golden["ids"].get<std::vector<int32_t>>())
            << golden["template"] << golden["messages"];
        EXPECT_EQ(flat(result.sample).weights, golden["assistant"].get<std::vector<float>>())
            << golden["template"] << golden["messages"];
        EXPECT_EQ(result.sample.sequences.size(), 1u);
        EXPECT_EQ(result.full_length, result.sample.length());
        RowNotes noted;
        for (const Message& message : messages) noted.add_if(has_turn_marker(message.content), RowNote::foreign_marker);
        EXPECT_EQ(result.notes, noted) << golden["messages"];
        messages.pop_back();
        EXPECT_EQ(encoder.encode_prompt(messages), golden["prompt"].get<std::vector<int32_t>>()) << golden["template"];
    }
}

/// Generation starts exactly where the trained answer starts, also after earlier answers.
TEST(Encode, PromptIsThePrefixOfTheChat) {
    for (const std::string& name : chat_template_names()) {
        EncodeOptions options;
        options.chat_template = ChatTemplate::built_in(name);
        options.mask_history = true;
        const Encoder encoder(tokenizer(), options);
        const std::vector<int32_t> prompt = encoder.encode_prompt({kChat.begin(), kChat.end() - 1});
        const FlatSample sample = flat(encoder.encode(chat_row(kChat), "here").sample);
        ASSERT_LT(prompt.size(), sample.tokens.size());
        EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), sample.tokens.begin())) << name;
        const auto first_trained =
            std::find(sample.weights.begin(), sample.weights.end(), 1.0f) - sample.weights.begin();
        EXPECT_EQ(first_trained, static_cast<std::ptrdiff_t>(prompt.size())) << name;
    }
}

TEST(Encode, LossMask) {
    const auto chat = [](auto change, std::vector<Message> messages = kChat) {
        EncodeOptions options;
        change(options);
        return encoded(chat_row(messages), options);
    };
    const std::string s = "<|im_start|>system\nS<|im_end|>\n", u = "<|im_start|>user\nU<|im_end|>\n",
                      v = "<|im_start|>user\nV<|im_end|>\n", open = "<|im_start|>assistant\n",
                      a = open + "A<|im_end|>\n";
    EXPECT_EQ(chat([](auto&) {}), s + u + open + "{A<|im_end|>}\n" + v + open + "{B<|im_end|>}\n");
    EXPECT_EQ(chat([](auto& o) { o.mask_history = true; }), s + u + a + v + open + "{B<|im_end|>}\n");
    EXPECT_EQ(chat([](auto& o) { o.train_on_eos = TrainOnEos::none; }),
              s + u + open + "{A}<|im_end|>\n" + v + open + "{B}<|im_end|>\n");
    EXPECT_EQ(chat([](auto& o) { o.train_on_eos = TrainOnEos::last; }),
              s + u + open + "{A}<|im_end|>\n" + v + open + "{B<|im_end|>}\n");
    EXPECT_EQ(chat([](auto& o) { o.train_on_eos = TrainOnEos::all; }),
              "<|im_start|>system\nS{<|im_end|>}\n<|im_start|>user\nU{<|im_end|>}\n" + open +
                  "{A<|im_end|>}\n<|im_start|>user\nV{<|im_end|>}\n" + open + "{B<|im_end|>}\n");
    EXPECT_EQ(
        chat([](auto& o) { o.roles_to_train = {"user"}; }),
        s + "<|im_start|>user\n{U<|im_end|>}\n" + a + "<|im_start|>user\n{V<|im_end|>}\n" + open + "B<|im_end|>\n");
    EXPECT_EQ(chat([](auto& o) { o.train_on_prompt = true; }),
              "<|im_start|>{" + (s + u + a + v + open + "B<|im_end|>\n}").substr(std::string("<|im_start|>").size()));
    // A message's own switch overrides its role.
    std::vector<Message> switched = kChat;
    switched[1].weight = 1;
    switched[2].weight = 0;
    EXPECT_EQ(chat([](auto&) {}, switched), s + "<|im_start|>user\n{U<|im_end|>}\n" + a + v + open + "{B<|im_end|>}\n");
    // prompt_completion with message lists: assistant turns of the prompt are not trained on.
    Row row = chat_row(kChat);
    row.prompt_messages = 4;
    EXPECT_EQ(encoded(row, {}), s + u + a + v + open + "{B<|im_end|>}\n");
}

TEST(Encode, GenerationContinuesAPlainPromptAsTrainingDid) {
    for (const bool add_bos : {true, false}) {
        const Encoder encoder(tokenizer(), {.add_bos = add_bos});
        const std::vector<int32_t> prompt = encoder.encode_plain_prompt("one two"),
                                   whole = encoder.encode(prompt_row("one two", " three"), "here").sample.whole(0);
        ASSERT_LT(prompt.size(), whole.size());
        EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), whole.begin()));
        EXPECT_EQ(prompt.front() == tokenizer()->bos(), add_bos);
    }
}

TEST(Encode, PlainRows) {
    const auto with = [](auto change) {
        EncodeOptions options;
        change(options);
        return options;
    };
    EXPECT_EQ(encoded(text_row("one two"), {}), "<s>{ one two</s>}");
    EXPECT_EQ(encoded(text_row("one"), with([](auto& o) { o.add_eos = false; })), "<s>{ one}");
    EXPECT_EQ(encoded(text_row("one"), with([](auto& o) { o.train_on_eos = TrainOnEos::none; })), "<s>{ one}</s>");
    EXPECT_EQ(encoded(prompt_row("one", " two"), {}), "<s> one{ two</s>}");
    EXPECT_EQ(encoded(prompt_row("", "two"), {}), "<s>{ two</s>}");
    EXPECT_EQ(encoded(prompt_row("one", " two"), with([](auto& o) { o.train_on_prompt = true; })), "<s>{ one two</s>}");
    // Without BOS nothing predicts the first token of the text.
    const Sequence bare = Encoder(tokenizer(), with([](auto& o) { o.add_bos = false; }))
                              .encode(text_row("one two"), "here")
                              .sample.sequences.at(0);
    EXPECT_EQ(bare.learned, (std::vector<LearnedSpan>{{1, static_cast<int32_t>(bare.length()), 1}}));
    // A chat with the plain template has the same tokens as prompt and completion.
    const auto plain = with([](auto& o) { o.chat_template = ChatTemplate::built_in("plain"); });
    EXPECT_EQ(encoded(chat_row({{"user", "one", {}}, {"assistant", " two", {}}}), plain), "<s> one{ two</s>}");
}

TEST(Encode, TooLongRows) {
    const Row row = prompt_row("one two three", " four five");
    EncodeOptions options;
    const int64_t full = Encoder(tokenizer(), options).encode(row, "here").full_length;
    const auto result = [&](ExcessLength policy, int64_t max_length) {
        options.excess_length = policy;
        options.max_length = max_length;
        return Encoder(tokenizer(), options).encode(row, "f:7");
    };
    EXPECT_FALSE(result(ExcessLength::error, full).notes.any());
    expect_error(Exit::data, fmt::format("f:7: the row has {} tokens; expected at most max_length {}", full, full - 1),
                 [&] { result(ExcessLength::error, full - 1); });
    const Encoded dropped = result(ExcessLength::drop, full - 1);
    EXPECT_TRUE(dropped.notes.has(RowNote::dropped_too_long));
    EXPECT_EQ(dropped.full_length, full);
    EXPECT_TRUE(dropped.sample.sequences.empty());
    const FlatSample whole = flat(result(ExcessLength::drop, full).sample);
    const Encoded cut = result(ExcessLength::truncate, full - 1);
    EXPECT_TRUE(cut.notes.has(RowNote::truncated));
    EXPECT_EQ(cut.full_length, full);
    EXPECT_EQ(flat(cut.sample).tokens, std::vector<int32_t>(whole.tokens.begin(), whole.tokens.end() - 1));
    EXPECT_EQ(flat(cut.sample).weights, std::vector<float>(whole.weights.begin(), whole.weights.end() - 1));
    const auto prompt = std::count(whole.weights.begin(), whole.weights.end(), 0.0f);
    EXPECT_TRUE(result(ExcessLength::truncate, prompt + 1).notes.has(RowNote::truncated));
    EXPECT_TRUE(result(ExcessLength::truncate, prompt).notes.has(RowNote::dropped_nothing_learned));
}

TEST(Encode, TokenRows) {
    const Encoder encoder(nullptr, {.vocab_size = 100});
    const Encoded some = encoder.encode(token_row({7, 99, 0, 8}, {-100, -100, 0, 8}), "here");
    EXPECT_EQ(flat(some.sample).tokens, (std::vector<int32_t>{7, 99, 0, 8}));
    EXPECT_EQ(flat(some.sample).weights, (std::vector<float>{0, 0, 1, 1}));
    EXPECT_FALSE(some.notes.has(RowNote::no_end_token)) << "no tokenizer, no suspicion";
    const Encoder on_prompt(nullptr, {.train_on_prompt = true, .vocab_size = 100});
    EXPECT_EQ(flat(on_prompt.encode(token_row({7, 8, 9}, {-100, -100, 9}), "here").sample).weights,
              (std::vector<float>{0, 0, 1}));
    EXPECT_EQ(flat(encoder.encode(token_row({1, 2}, {1, 2}), "here").sample).weights, (std::vector<float>{0, 1}));
    EXPECT_TRUE(encoder.encode(token_row({1, 2}, {1, -100}), "here").notes.has(RowNote::dropped_nothing_learned));
    expect_error(Exit::data, "f:3: input_ids[1] is 100; expected 0 to 99", [&] {
        (void)encoder.encode(token_row({1, 100}, {1, 100}), "f:3");
    });
    expect_error(Exit::data, "f:3: labels[0] is 2; expected -100 or 1", [&] {
        (void)encoder.encode(token_row({1, 2}, {2, -100}), "f:3");
    });
    expect_error(Exit::config, "f:3: a text row needs a tokenizer",
                 [&] { (void)encoder.encode(text_row("a"), "f:3"); });
    expect_error(Exit::config, "needs a tokenizer", [&] { (void)encoder.encode_prompt(kChat); });
    EXPECT_TRUE(encoder.stop_ids().empty());
}

/// Each token that is learned has the message's weight times the row's.
TEST(Encode, WeightsOfRowsAndMessages) {
    const auto weighted = [](const std::vector<float>& weights, float factor) {
        std::vector<float> scaled = weights;
        for (float& w : scaled) w *= factor;
        return scaled;
    };
    const auto encode = [](Row row, float weight, EncodeOptions options = {}) {
        row.weight = weight;
        return Encoder(tokenizer(), options).encode(row, "here");
    };
    for (const Row& row : {text_row("one two"), prompt_row("one", " two"), chat_row(kChat)}) {
        const Encoded once = encode(row, 1), twice = encode(row, 2.5f);
        EXPECT_EQ(flat(twice.sample).tokens, flat(once.sample).tokens);
        EXPECT_EQ(flat(twice.sample).weights, weighted(flat(once.sample).weights, 2.5f));
        EXPECT_FALSE(once.notes.any());
        EXPECT_EQ(twice.notes, RowNotes{RowNote::weighted});
        EXPECT_EQ(encode(row, 0).notes, RowNotes{RowNote::dropped_nothing_learned});
    }

    std::vector<Message> chat = kChat;
    chat[1].weight = 3;
    chat[2].weight = 0.5f;
    const auto spans = [&](EncodeOptions options) {
        const Sequence sequence = encode(chat_row(chat), 2, options).sample.sequences.at(0);
        std::string text;
        for (const auto& [begin, end, weight] : sequence.learned) {
            const std::vector<int32_t> ids(sequence.tokens.begin() + begin, sequence.tokens.begin() + end);
            text += fmt::format("{}:{}", weight, tokenizer()->decode(ids, SpecialTokens::keep));
            text += ' ';
        }
        return text;
    };
    EXPECT_EQ(spans({}), "6:U<|im_end|> 1:A<|im_end|> 2:B<|im_end|> ");
    EXPECT_EQ(spans({.train_on_eos = TrainOnEos::all}),
              "2:<|im_end|> 6:U<|im_end|> 1:A<|im_end|> 2:<|im_end|> 2:B<|im_end|> ");
    EXPECT_EQ(spans({.train_on_eos = TrainOnEos::last}), "6:U 1:A 2:B<|im_end|> ");
    EXPECT_EQ(spans({.train_on_eos = TrainOnEos::none}), "6:U 1:A 2:B ");
    EXPECT_EQ(spans({.mask_history = true}), "2:B<|im_end|> ");

    Row tokens = token_row({7, 8, 9, 5}, {-100, 8, 9, -100});
    tokens.token_weights = {0, 0.5f, 1, 0};
    EXPECT_EQ(encode(tokens, 4).sample.sequences.at(0).learned, (std::vector<LearnedSpan>{{1, 2, 2}, {2, 3, 4}}));
}

TEST(Encode, SuspiciousRows) {
    const int32_t bos = 1, eos = 2;
    const Encoder chatml(tokenizer(), {});
    EXPECT_TRUE(chatml.encode(token_row({5, 6}, {5, 6}), "here").notes.has(RowNote::no_end_token));
    EXPECT_FALSE(chatml.encode(token_row({5, 6, eos, 7}, {5, 6, eos, -100}), "here").notes.has(RowNote::no_end_token));
    EXPECT_TRUE(chatml.encode(token_row({bos, bos, 6}, {bos, bos, 6}), "here").notes.has(RowNote::double_bos));
    EXPECT_FALSE(chatml.encode(token_row({bos, 6, bos}, {bos, 6, bos}), "here").notes.has(RowNote::double_bos));
    EXPECT_TRUE(chatml.encode(text_row("<s>[INST] hello"), "here").notes.has(RowNote::double_bos));
    EXPECT_FALSE(chatml.encode(text_row("hello <s>"), "here").notes.has(RowNote::double_bos));
    for (const char* text : {"</s> first", "in the </s> middle", "at the end</s>"})
        EXPECT_TRUE(chatml.encode(text_row(text), "here").notes.has(RowNote::marker_in_text)) << text;
    EXPECT_FALSE(chatml.encode(text_row("no < s>"), "here").notes.has(RowNote::marker_in_text));
    EXPECT_TRUE(chatml.encode(chat_row({{"user", "a<|im_end|>b", {}}, {"assistant", "c", {}}}), "here")
                    .notes.has(RowNote::marker_in_text));
    EXPECT_TRUE(chatml.encode(chat_row({{"user", "a<|eot_id|>b", {}}, {"assistant", "c", {}}}), "here")
                    .notes.has(RowNote::marker_in_text))
        << "a special token that the template does not use";
    EXPECT_FALSE(chatml.encode(chat_row({{"user", "a<|eot|>b", {}}, {"assistant", "c", {}}}), "here")
                     .notes.has(RowNote::marker_in_text));
    EncodeOptions options;
    options.add_eos = false;
    EXPECT_TRUE(Encoder(tokenizer(), options).encode(text_row("hello"), "here").notes.has(RowNote::no_end_token));
}

class EncodeFile : public FileTest {};

TEST_F(EncodeFile, MarkersThatTheTokenizerLacksAreSpelledOut) {
    std::string text;
    for (int i = 0; i < 100; ++i) text += fmt::format("some system user assistant text {}\n", i);
    spill(path("text.txt"), text);
    TokenizerTraining training;
    training.text_files = {path("text.txt")};
    training.output = path("t");
    training.vocab_size = 290;
    training.special_tokens = {"<|im_start|>"};
    train_tokenizer(training);
    const auto bare = Tokenizer::load(path("t.model"));
    const Row row = chat_row({{"user", "a", {}}, {"assistant", "b", {}}});
    expect_error(Exit::config,
                 "here: the chat template chatml writes <|im_end|>, which " + path("t.model") +
                     " does not know as one token; choose a chat_template that fits the tokenizer (built in: plain, ",
                 [&] { (void)Encoder(bare, {}).encode(row, "here"); });
    const Encoder encoder(bare, {.allow_spelled_out_markers = true});
    EXPECT_EQ(encoder.spelled_out(), std::vector<std::string>{"<|im_end|>"});
    EXPECT_EQ(encoder.stop_ids(), std::vector<int32_t>{2});
    const Encoded result = encoder.encode(row, "here");
    EXPECT_TRUE(result.notes.has(RowNote::no_end_token));
    EXPECT_EQ(bare->decode(flat(result.sample).tokens, SpecialTokens::keep),
              "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n");
    // The answer is trained on. Its spelled-out end is text of the template.
    std::vector<int32_t> trained;
    for (size_t i = 0; i < flat(result.sample).tokens.size(); ++i)
        if (flat(result.sample).weights[i] > 0) trained.push_back(flat(result.sample).tokens[i]);
    EXPECT_EQ(bare->decode(trained), "b");
}

TEST(Encode, MarkersAndStops) {
    const struct {
        const char* name;
        std::vector<std::string> stops;
    } cases[] = {{"plain", {"</s>"}},
                 {"chatml", {"<|im_end|>", "</s>"}},
                 {"llama2", {"</s>"}},
                 {"llama3", {"<|eot_id|>", "</s>"}},
                 {"mistral", {"</s>"}},
                 {"zephyr", {"</s>"}},
                 {"gemma", {"<end_of_turn>", "</s>"}}};
    for (const auto& [name, stops] : cases) {
        EncodeOptions options;
        options.chat_template = ChatTemplate::built_in(name);
        const Encoder encoder(tokenizer(), options);
        std::vector<std::string> found;
        for (const int32_t id : encoder.stop_ids()) found.push_back(tokenizer()->piece(id));
        EXPECT_EQ(found, stops) << name;
        EXPECT_TRUE(encoder.spelled_out().empty()) << name;
    }
}

TEST(Encode, RefusesBadOptions) {
    const auto refuses = [](const std::string& part, auto change) {
        EncodeOptions options;
        change(options);
        expect_error(Exit::config, part, [&] { Encoder(tokenizer(), options); });
    };
    expect_error(Exit::config, "unknown chat template 'vicuna'", [] { ChatTemplate::built_in("vicuna"); });
    refuses("max_length 1; expected at least 2", [](auto& o) { o.max_length = 1; });
    refuses("train_on_prompt and mask_history contradict", [](auto& o) { o.train_on_prompt = o.mask_history = true; });
    refuses("420 pieces; expected at most the model's vocabulary of 419", [](auto& o) { o.vocab_size = 419; });
    expect_error(Exit::data, "message 1 is from role 'user'; user and assistant messages must alternate", [] {
        EncodeOptions options;
        options.chat_template = ChatTemplate::built_in("llama2");
        (void)Encoder(tokenizer(), options).encode(chat_row({{"user", "a", {}}, {"user", "b", {}}}), "f:9");
    });
}

}  // namespace
}  // namespace colonnade
