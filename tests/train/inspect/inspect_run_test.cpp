// The inspection of a run's data: it shows the row that the loader makes, token by token, and faults in the data are
// listed with their rows.

#include "train/inspect/inspect_run.h"

#include "data/packing/loader.h"
#include "tests/support/expect_error.h"
#include "tests/support/small_tokenizer.h"
#include "tests/support/tiny_run.h"
#include "train/inspect/inspection_text.h"
#include "train/run/run_schedule.h"

namespace colonnade {
namespace {

constexpr const char* chatml =
    R"({% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";

class InspectRun : public RunTest {
  protected:
    Session session(const std::vector<std::string>& arguments = {}) const {
        std::vector<std::string> all = {output("run")};
        all.insert(all.end(), arguments.begin(), arguments.end());
        std::optional<Session> opened;
        quietly([&] { opened = open_session(load_config(config(), all), one_rank(), SessionUse::plan); });
        return *std::move(opened);
    }
    /// Chats with a tokenizer that has the markers of ChatML.
    void write_chats(const std::string& rows, const std::string& keys = "", const std::string& text = chatml) const {
        spill(path("chats.jsonl"), rows);
        std::filesystem::create_directories(path("tokenizer"));
        spill(path("tokenizer/tokenizer.json"),
              small_tokenizer_json({.special = {"<|im_start|>", "<|im_end|>"}, .eos = "<|im_end|>"}).dump());
        spill(path("tokenizer/tokenizer_config.json"), Json{{"eos_token", "<|im_end|>"}}.dump());
        spill(path("chat.jinja"), text);
        spill(config(),
              fmt::format(
                  "model: {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2}}\n"
                  "tokenizer_name_or_path: {}\nchat_template: {}\ndatasets: [{{path: {}}}]\n"
                  "output_dir: {}\ndevice: cpu\nmax_length: 256\n{}",
                  path("tokenizer"), path("chat.jinja"), path("chats.jsonl"), path("run"), keys));
    }
    std::string place(int line) const { return fmt::format("{}:{}", path("chats.jsonl"), line); }
};

std::string chat(const std::string& question, const std::string& answer) {
    return Json{{"messages", {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}}}}
               .dump() +
           "\n";
}

const InspectedNote* note_of(const Inspection& all, const std::string& label) {
    const auto found = std::ranges::find(all.notes, label, &InspectedNote::label);
    return found == all.notes.end() ? nullptr : &*found;
}

std::string learned_text(const InspectedSequence& sequence) {
    std::string text;
    for (size_t i = 0; i < sequence.texts.size(); ++i)
        if (sequence.weights[i] > 0) text += sequence.texts[i];
    return text;
}

/// The packed row is the one that training gets: tokens, positions, mask, and what is learned.
void expect_row_of_loader(const Session& session, const Inspection& all) {
    PackSchedule schedule = run_schedule(session, 1);
    Loader loader(session.train.store, schedule, {.document_mask = session.config.document_mask});
    const Batch batch = loader.next()->batch;
    const InspectedRow& row = all.row;
    ASSERT_EQ(row.number, 1);
    ASSERT_EQ(std::ssize(row.ids), batch.length);
    const auto first = [&](const auto& all_packs) {
        return std::vector(all_packs.begin(), all_packs.begin() + batch.length);
    };
    EXPECT_EQ(row.ids, first(batch.tokens));
    EXPECT_EQ(row.positions, first(batch.positions));
    EXPECT_EQ(all.masks.at(0).mask.lts, first(batch.mask.lts));
    double weight = 0, of_batch = 0;
    for (const double w : row.weights) weight += w;
    for (size_t t = 0; t < batch.targets.size(); ++t)
        if (batch.rows[t] < batch.length) of_batch += batch.weights[t];
    EXPECT_DOUBLE_EQ(weight, of_batch);
    for (const InspectedSample& sample : all.samples)
        for (const InspectedSequence& sequence : sample.sequences)
            for (size_t t = 0; t < sequence.rows.size(); ++t) {
                const auto at = static_cast<size_t>(sequence.rows[t]);
                EXPECT_EQ(row.ids[at], sequence.ids[t]);
                if (session.config.document_mask) {
                    EXPECT_EQ(row.positions[at], static_cast<int32_t>(t));
                }
            }
}

TEST_F(InspectRun, TheRowIsTheOneThatTrainingGets) {
    spill(path("train.jsonl"), chain_rows(60));
    write_config("per_device_train_batch_size: 2\n");
    for (const std::string mask : {"document_mask=true", "document_mask=false"}) {
        const Session opened = session({"stage=pt", "packing_length=64", "max_length=64", mask});
        expect_row_of_loader(opened, inspect_run(opened, {}));
    }
}

TEST_F(InspectRun, TreesShowWhatIsShared) {
    spill(path("train.jsonl"), pair_rows(40));
    write_config("stage: dpo\nper_device_train_batch_size: 1\n");
    const Session opened = session({"packing_length=128", "max_length=64"});
    const Inspection all = inspect_run(opened, {});
    expect_row_of_loader(opened, all);
    int64_t shared = 0;
    for (const int32_t users : all.row.users) shared += users > 1;
    EXPECT_GT(shared, 0);
    const InspectedSample& sample = all.samples.at(0);
    ASSERT_EQ(sample.sequences.size(), 2u);
    EXPECT_EQ(sample.sequences[0].name, "chosen");
    EXPECT_EQ(sample.sequences[1].name, "rejected");
    EXPECT_EQ(sample.sequences[1].shared, 2);
    EXPECT_EQ(sample.sequences[0].rows[1], sample.sequences[1].rows[1]);
}

TEST_F(InspectRun, TheTextsOfTokensAreTheWholeText) {
    const std::string question = "Größe 你好 👩‍👩‍👧?", answer = "  two\n\nlines\t";
    write_chats(chat(question, answer));
    const Session opened = session();
    const InspectedSequence shown = inspect_run(opened, {}).samples.at(0).sequences.at(0);
    std::string text;
    for (const std::string& part : shown.texts) text += part;
    EXPECT_EQ(text, "<|im_start|>user\n" + question + "<|im_end|>\n<|im_start|>assistant\n" + answer + "<|im_end|>\n");
    EXPECT_EQ(learned_text(shown), answer + "<|im_end|>");
    std::vector<std::string> special;
    for (size_t i = 0; i < shown.texts.size(); ++i)
        if (shown.special[i]) special.push_back(shown.texts[i]);
    EXPECT_EQ(special, (std::vector<std::string>{"<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"}));
}

TEST_F(InspectRun, AnAnswerWithoutEndTokenIsListed) {
    const std::string no_end = R"({% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %})";
    write_chats(chat("What is it?", "A tree.") + chat("And this?", "A leaf."), "", no_end);
    const Inspection all = inspect_run(session(), {});
    const InspectedNote* const note = note_of(all, "no end token");
    ASSERT_NE(note, nullptr);
    EXPECT_EQ(note->effect, "suspicious");
    EXPECT_EQ(note->rows, 2);
    EXPECT_EQ(note->places, (std::vector<std::string>{place(1), place(2)}));
    EXPECT_EQ(learned_text(all.samples.at(0).sequences.at(0)).find("<|im_end|>"), std::string::npos);
}

TEST_F(InspectRun, ATextOfAnotherTemplateIsListed) {
    write_chats(chat("What is it?", "A tree.") + chat("[INST] What is it? [/INST]", "A leaf.") +
                chat("<|user|>\nHow much is the fish?", "Ten.") + chat("a[0] < b[1] <|> <b>x</b>", "No marker."));
    const Inspection all = inspect_run(session(), {});
    const InspectedNote* const note = note_of(all, "foreign marker");
    ASSERT_NE(note, nullptr);
    EXPECT_EQ(note->rows, 2);
    EXPECT_EQ(note->places, (std::vector<std::string>{place(2), place(3)}));
}

TEST_F(InspectRun, ATruncatedAnswerIsListed) {
    std::string answer;
    for (int i = 0; i < 200; ++i) answer += fmt::format("word {} ", i);
    write_chats(chat("What is it?", "A tree.") + chat("Count!", answer), "excess_length: truncate\n");
    const Inspection all = inspect_run(session(), {.sample = "chats.jsonl:2"});
    const InspectedNote* const note = note_of(all, "truncated");
    ASSERT_NE(note, nullptr);
    EXPECT_EQ(note->places, std::vector<std::string>{place(2)});
    const auto cut = std::ranges::find(all.samples, place(2), &InspectedSample::place);
    ASSERT_NE(cut, all.samples.end());
    EXPECT_EQ(cut->notes.at(0), "truncated");
    EXPECT_EQ(cut, all.samples.begin() + static_cast<std::ptrdiff_t>(all.shown));
    EXPECT_FALSE(learned_text(cut->sequences.at(0)).ends_with("<|im_end|>"));
    const std::string text = inspection_text(all, 64, LearnedMark::brackets);
    EXPECT_NE(text.find(place(2) + ": truncated"), std::string::npos) << text;
}

TEST_F(InspectRun, FindsTheRowOfASample) {
    std::string rows;
    for (int i = 0; i < 50; ++i) rows += chat(fmt::format("Question number {}?", i), "An answer of some words.");
    rows += chat("too long", std::string(4000, 'x'));
    write_chats(rows, "packing_length: 256\nexcess_length: drop\n");
    const Session opened = session();
    const Inspection all = inspect_run(opened, {.sample = "chats.jsonl:37"});
    EXPECT_TRUE(std::ranges::any_of(
        all.samples, [&](const InspectedSample& s) { return s.place == place(37) && !s.sequences[0].rows.empty(); }));
    EXPECT_EQ(inspect_run(opened, {.row = all.row.number}).row.ids, all.row.ids);
    expect_error(Exit::config, "--sample chats.jsonl:51: this row was dropped: too long",
                 [&] { inspect_run(opened, {.sample = "chats.jsonl:51"}); });
    expect_error(Exit::config, "--sample chats.jsonl:99: no sample comes from a row of this name",
                 [&] { inspect_run(opened, {.sample = "chats.jsonl:99"}); });
    expect_error(Exit::config, fmt::format("--row 1000: there are {} packed rows", all.row.of),
                 [&] { inspect_run(opened, {.row = 1000}); });
    expect_error(Exit::config, "--eval: the run has no evaluation data", [&] { inspect_run(opened, {.eval = true}); });
}

}  // namespace
}  // namespace colonnade
