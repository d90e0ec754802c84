#include "data/rows/teacher_lists.h"

namespace colonnade {

void TeacherLists::add(int32_t id, float log_prob) {
    ids.push_back(id);
    log_probs.push_back(log_prob);
}

void TeacherLists::end_list() {
    if (empty()) begins = {0};
    begins.push_back(std::ssize(ids));
}

void TeacherLists::append(const TeacherLists& other, int64_t token) {
    const int64_t begin = other.begins[static_cast<size_t>(token)], end = begin + other.length_of(token);
    ids.insert(ids.end(), other.ids.begin() + begin, other.ids.begin() + end);
    log_probs.insert(log_probs.end(), other.log_probs.begin() + begin, other.log_probs.begin() + end);
    end_list();
}

void TeacherLists::append(const TeacherLists& other) {
    for (int64_t token = 0; token < other.tokens(); ++token) append(other, token);
}

void TeacherLists::resize(int64_t tokens) {
    if (tokens >= this->tokens()) return;
    begins.resize(static_cast<size_t>(tokens) + 1);
    ids.resize(static_cast<size_t>(begins.back()));
    log_probs.resize(ids.size());
}

}  // namespace colonnade
