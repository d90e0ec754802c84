#pragma once
// TeacherLists: what a teacher says about tokens, in their order: of each the tokens that the teacher finds most probable
// in its place, with their log-probabilities.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace colonnade {

struct TeacherLists {
    static constexpr int64_t longest = 256;  ///< a list

    std::vector<int64_t> begins{};  ///< [tokens + 1]: token i has the entries [begins[i], begins[i + 1]); or empty
    std::vector<int32_t> ids{};     ///< distinct in a list
    std::vector<float> log_probs{};

    bool empty() const { return begins.empty(); }
    int64_t tokens() const { return empty() ? 0 : std::ssize(begins) - 1; }
    int64_t length_of(int64_t token) const {
        return begins[static_cast<size_t>(token) + 1] - begins[static_cast<size_t>(token)];
    }
    /// Adds an entry to the list of the next token, and ends that list.
    void add(int32_t id, float log_prob);
    void end_list();
    /// Appends the list of a token of `other`, or all lists.
    void append(const TeacherLists& other, int64_t token);
    void append(const TeacherLists& other);
    /// Keeps those of the first tokens.
    void resize(int64_t tokens);
    bool operator==(const TeacherLists&) const = default;
};

}  // namespace colonnade
