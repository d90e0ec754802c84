#include "train/run/teach.h"

#include <algorithm>
#include <cmath>

#include "data/packing/loader.h"
#include "engine/device/timing.h"
#include "engine/io/files.h"
#include "engine/io/hdf5.h"
#include "engine/io/progress.h"
#include "layers/largest_logits.h"
#include "train/folders/initial_weights.h"
#include "train/objectives/teaching_objective.h"
#include "train/run/learner_options.h"

namespace colonnade {
namespace {

/// Adapters of rank 1 that add nothing: so no gradient and no moment of the model is in memory.
LearnerOptions teacher_options(Config& c, const TeachOptions& options, Gpu* gpu) {
    c.finetuning_type = Finetuning::lora;
    c.lora_rank = 1;
    c.lora_alpha = 1;
    c.lora_dropout = 0;
    c.lora_target = {"q_proj"};
    c.neftune_noise_alpha = 0;
    LearnerOptions learner = learner_options(c, one_rank(), gpu);
    learner.objective = std::make_shared<TeachingObjective>(options.top, options.temperature);
    return learner;
}

class TaughtFile {
  public:
    TaughtFile(const TokenStore& store, const TeachOptions& options, int64_t top)
        : top_(top), commit_(options.output), file_(commit_.temporary()) {
        int64_t tokens = 0, rows = 0;
        for (int64_t i = 0; i < store.size(); ++i)
            for (const Sequence& sequence : store.sample(i).sequences) {
                tokens += sequence.length();
                ++rows;
            }
        file_.create("row_begins", DType::i64, rows + 1);
        for (const char* name : {"input_ids", "labels"}) file_.create(name, DType::i32, tokens);
        file_.create("token_weights", DType::f32, tokens);
        file_.create("teacher_ids", DType::i32, tokens, top);
        file_.create("teacher_log_probs", DType::f32, tokens, top);
        put("row_begins", std::vector<int64_t>{0});
    }

    /// `lists`: of all targets of a batch; those of this sequence are given by its terms.
    void add(const std::vector<int32_t>& tokens, const Sequence& sequence, const TeacherLists& lists,
             std::span<const int32_t> terms) {
        const size_t length = tokens.size(), top = static_cast<size_t>(top_);
        std::vector<int32_t> labels(length, -100), ids(length * top, -1);
        std::vector<float> weights(length), log_probs(length * top);
        size_t term = 0;
        for (const auto& [begin, end, weight] : sequence.learned)
            for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i, ++term) {
                labels[i] = tokens[i];
                weights[i] = weight;
                const auto list = static_cast<size_t>(terms[term]);
                const int64_t first = lists.begins[list], count = lists.length_of(terms[term]);
                const auto to = static_cast<std::ptrdiff_t>(i * top);
                std::copy_n(lists.ids.begin() + first, count, ids.begin() + to);
                std::copy_n(lists.log_probs.begin() + first, count, log_probs.begin() + to);
                for (int64_t e = first; e < first + count; ++e)
                    done_.probability += std::exp(static_cast<double>(lists.log_probs[static_cast<size_t>(e)]));
                ++done_.lists;
            }
        done_.tokens += static_cast<int64_t>(length);
        ++done_.rows;
        put("row_begins", std::vector<int64_t>{done_.tokens});
        put("input_ids", tokens);
        put("labels", labels);
        put("token_weights", weights);
        put("teacher_ids", ids);
        put("teacher_log_probs", log_probs);
    }

    Taught finish() {
        file_.close();
        commit_.commit();
        done_.probability /= static_cast<double>(std::max<int64_t>(done_.lists, 1));
        return done_;
    }

  private:
    template <typename T>
    void put(const char* name, const std::vector<T>& values) {
        file_.append(name, view_of(values));
    }

    int64_t top_;
    FileCommit commit_;
    Hdf5Writer file_;
    Taught done_;
};

}  // namespace

Taught teach(Session session, const TeachOptions& options) {
    const auto start = std::chrono::steady_clock::now();
    Config& c = session.config;
    const TokenStore& store = session.train.store;
    const auto gpu = session.device == Device::cuda ? std::make_unique<Gpu>(static_cast<int>(c.device_index)) : nullptr;
    Learner learner(session.model, teacher_options(c, options, gpu.get()));
    load_model(c.model_name_or_path, static_cast<uint64_t>(c.seed), learner);
    TaughtFile file(store, options, std::min(options.top, session.model.vocab_size));
    PackSchedule schedule(session.train.row_lengths(),
                          {.packing = eval_packing(c), .layout = {c.per_device_eval_batch_size, 1, 1}, .epochs = 1},
                          session.train.prefixes, store.visible_pairs());
    Loader loader(store, schedule);
    Progress progress({.label = "teaching", .total = static_cast<double>(store.size()), .unit = "samples"});
    double done = 0;
    while (const auto loaded = loader.next()) {
        const Batch& batch = loaded->batch;
        const TeacherLists lists = learner.teach(learner.context(), batch);
        size_t s = 0;
        for (const int64_t i : loaded->samples) {
            const Sample sample = store.sample(i);
            for (size_t n = 0; n < sample.sequences.size(); ++n, ++s) {
                const auto begin = static_cast<size_t>(batch.term_begins[s]),
                           end = static_cast<size_t>(batch.term_begins[s + 1]);
                file.add(sample.whole(n), sample.sequences[n], lists,
                         std::span(batch.term_targets).subspan(begin, end - begin));
            }
        }
        progress.update(done += static_cast<double>(loaded->samples.size()));
    }
    progress.finish();
    Taught taught = file.finish();
    taught.seconds = seconds_since(start);
    return taught;
}

}  // namespace colonnade
