// The buckets in which gradients travel: one per layer, in the order in which backward finishes them.

#include "train/step/gradient_sync.h"

#include <gtest/gtest.h>

#include "tests/support/tiny_lora.h"

namespace colonnade {
namespace {

struct Expected {
    const char* name;
    int64_t first_layer, last_layer;
};

void expect_buckets(const ParameterList& list, const std::vector<Expected>& expected) {
    const std::vector<GradientBucket> buckets = gradient_buckets(list);
    ASSERT_EQ(buckets.size(), expected.size());
    int64_t end = 0;
    for (size_t i = 0; i < buckets.size(); ++i) {
        EXPECT_EQ(buckets[i].name, expected[i].name);
        EXPECT_EQ(buckets[i].first_layer, expected[i].first_layer) << buckets[i].name;
        EXPECT_EQ(buckets[i].last_layer, expected[i].last_layer) << buckets[i].name;
        EXPECT_EQ(buckets[i].elements.begin, end) << buckets[i].name;
        end = buckets[i].elements.end;
    }
    EXPECT_EQ(end, list.size());
}

TEST(GradientBuckets, AreTheLayersInBackwardOrder) {
    expect_buckets(ParameterList(small_config(Architecture::llama, false)),
                   {{"the head", 2, 2}, {"layer 1", 1, 1}, {"layer 0", 0, 0}, {"the embedding", -1, -1}});
}

TEST(GradientBuckets, JoinTheFinalNormWithTheLastLayerIfTheHeadIsTied) {
    expect_buckets(ParameterList(small_config(Architecture::llama, true)),
                   {{"layer 1", 1, 2}, {"layer 0", 0, 0}, {"the embedding", -1, -1}});
}

TEST(GradientBuckets, OfAdaptersHaveNoEmbedding) {
    const ModelConfig config = small_config(Architecture::llama, false);
    LoraSettings lora = lora_of();
    expect_buckets(lora_parameters(config, lora), {{"layer 1", 1, 1}, {"layer 0", 0, 0}});
    lora.head = true;
    expect_buckets(lora_parameters(config, lora), {{"the head", 2, 2}, {"layer 1", 1, 1}, {"layer 0", 0, 0}});
}

}  // namespace
}  // namespace colonnade
