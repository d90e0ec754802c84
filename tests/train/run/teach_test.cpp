// A teacher from a user's view: its lists as rows, and a student that is the teacher itself, which has nothing to learn.

#include "train/run/teach.h"

#include "engine/io/hdf5.h"
#include "tests/support/expect_error.h"
#include "tests/support/tiny_run.h"

namespace colonnade {
namespace {

class Teaching : public RunTest {
  protected:
    void SetUp() override {
        RunTest::SetUp();
        spill(path("train.jsonl"), chain_rows(60));
        write_config();
        train(config(), {output("base"), "max_steps=80", "learning_rate=0.01"});
        write_tuning("");
    }
    Taught write_lists(const TeachOptions& options) const {
        Taught taught;
        quietly([&] {
            taught = teach(open_session(load_config(config(), {output("teacher"), "val_size=0", "eval_strategy=no"})),
                           options);
        });
        return taught;
    }
};

TEST_F(Teaching, ListsAreThoseOfTheModel) {
    const Taught taught = write_lists({.output = path("taught.h5"), .top = 5});
    EXPECT_EQ(taught.rows, 60);
    const Hdf5Reader file(path("taught.h5"));
    EXPECT_EQ(file.shape("teacher_ids"), (std::vector<int64_t>{taught.tokens, 5}));
    const auto ids = file.read_all<int32_t>("teacher_ids"), labels = file.read_all<int32_t>("labels");
    const auto log_probs = file.read_all<float>("teacher_log_probs");
    int64_t lists = 0, first = 0;
    double probability = 0;
    for (size_t token = 0; token < labels.size(); ++token) {
        EXPECT_EQ(labels[token] == -100, ids[5 * token] == -1);
        if (labels[token] == -100) continue;
        ++lists;
        first += ids[5 * token] == labels[token] ? 1 : 0;
        for (size_t i = 0; i < 5; ++i) {
            probability += std::exp(static_cast<double>(log_probs[5 * token + i]));
            if (i > 0) {
                EXPECT_LE(log_probs[5 * token + i], log_probs[5 * token + i - 1]);
            }
        }
    }
    EXPECT_EQ(lists, taught.lists);
    EXPECT_GT(first, lists / 2);  // the model has learned the chain
    EXPECT_NEAR(probability / static_cast<double>(lists), taught.probability, 1e-9);
    EXPECT_LT(taught.probability, 1);
}

TEST_F(Teaching, AStudentThatIsTheTeacherLearnsNothing) {
    write_lists({.output = path("taught.h5"), .top = 5});
    const auto distill = [&](const std::string& run, const std::vector<std::string>& more) {
        std::vector<std::string> arguments = {output(run),   "stage=distill",  "datasets[0].path=" + path("taught.h5"),
                                              "max_steps=4", "warmup_steps=0", "eval_on_start=true"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        train(config(), arguments);
        return value_at(read_log(path(run)), "eval_divergence", 0);
    };
    EXPECT_NEAR(distill("same", {}), 0, 1e-6);
    EXPECT_NEAR(distill("reverse", {"beta=1"}), 0, 1e-6);
    // The lists of another temperature are not those of the model.
    write_lists({.output = path("taught.h5"), .top = 5, .temperature = 2});
    EXPECT_GT(distill("other", {}), 0.01);
    EXPECT_NEAR(distill("as warm", {"temperature=2"}), 0, 1e-6);
}

}  // namespace
}  // namespace colonnade
