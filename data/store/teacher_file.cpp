#include "data/store/teacher_file.h"

#include <zlib.h>

#include <bit>

#include "engine/device/error.h"

namespace colonnade {
namespace {

constexpr size_t header_bytes = 96;
constexpr auto header_words = static_cast<int64_t>(header_bytes / sizeof(uint32_t));

std::string header(const std::string& key) {
    std::string text = fmt::format("colonnade teacher 1 {}\n", key);
    text.resize(header_bytes);
    return text;
}

uint32_t crc(std::span<const uint32_t> words) {
    return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(words.data()), words.size_bytes()));
}

}  // namespace

TeacherPlace append_words(const TeacherLists& lists, std::vector<uint32_t>& words) {
    const size_t begin = words.size();
    words.push_back(0);
    words.push_back(static_cast<uint32_t>(lists.tokens()));
    for (int64_t token = 0; token < lists.tokens(); ++token) {
        const auto first = static_cast<size_t>(lists.begins[static_cast<size_t>(token)]);
        const auto count = static_cast<size_t>(lists.length_of(token));
        words.push_back(static_cast<uint32_t>(count));
        for (size_t i = first; i < first + count; ++i) words.push_back(static_cast<uint32_t>(lists.ids[i]));
        for (size_t i = first; i < first + count; ++i) words.push_back(std::bit_cast<uint32_t>(lists.log_probs[i]));
    }
    words[begin] = crc(std::span(words).subspan(begin + 1));
    return {static_cast<int64_t>(begin), static_cast<int32_t>(words.size() - begin)};
}

TeacherFileWriter::TeacherFileWriter(const std::string& path, const std::string& key)
    : commit_(path), file_(commit_.temporary()) {
    file_.write(header(key));
    words_ = header_words;
}

void TeacherFileWriter::append(const std::vector<uint32_t>& words) {
    file_.write(words.data(), words.size() * sizeof(words[0]));
    words_ += std::ssize(words);
}

void TeacherFileWriter::commit() {
    file_.close();
    commit_.commit();
}

TeacherFile::TeacherFile(const std::string& path, const std::string& key, int64_t words, int64_t vocab_size)
    : file_(path), words_(words), vocab_size_(vocab_size) {
    const auto bytes = static_cast<uint64_t>(words) * sizeof(uint32_t);
    if (file_.size() != bytes) refuse(fmt::format("{} bytes, expected {}", file_.size(), bytes));
    std::string found(header_bytes, '\0');
    file_.read_at(0, found.data(), found.size());
    if (found != header(key)) refuse("it is not of this data");
}

void TeacherFile::refuse(const std::string& what) const {
    fail(Exit::data,
         "{}: {}; delete this file, and the .h5 file beside it of the same name, to build both again from the data",
         file_.path(), what);
}

TeacherLists TeacherFile::read(const TeacherPlace& place) const {
    TeacherLists lists;
    if (place.words == 0) return lists;
    if (place.begin < header_words || place.words < 2 || place.begin > words_ - place.words)
        refuse(fmt::format("no lists at word {}", place.begin));
    std::vector<uint32_t> words(static_cast<size_t>(place.words));
    file_.read_at(static_cast<uint64_t>(place.begin) * sizeof(uint32_t), words.data(), words.size() * sizeof(uint32_t));
    if (crc(std::span(words).subspan(1)) != words[0])
        refuse(fmt::format("the bytes from word {} on are not those that were written", place.begin));
    size_t at = 2;
    for (uint32_t token = 0; token < words[1] && at < words.size(); ++token) {
        const size_t count = words[at++];
        if (count > TeacherLists::longest || at + 2 * count > words.size()) break;
        for (size_t i = at; i < at + count; ++i) {
            if (words[i] >= static_cast<uint64_t>(vocab_size_))
                refuse(fmt::format("token {} at word {} is outside the vocabulary [0, {})", words[i],
                                   place.begin + static_cast<int64_t>(i), vocab_size_));
            lists.add(static_cast<int32_t>(words[i]), std::bit_cast<float>(words[i + count]));
        }
        lists.end_list();
        at += 2 * count;
    }
    if (at != words.size() || lists.tokens() != static_cast<int64_t>(words[1]))
        refuse(fmt::format("the lists at word {} are not complete", place.begin));
    return lists;
}

void TeacherFile::fill(Sample& sample) const {
    for (Sequence& sequence : sample.sequences) sequence.teacher = read(sequence.teacher_place);
}

}  // namespace colonnade
