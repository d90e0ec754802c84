#pragma once
// TeacherFile: what a teacher says about the learned tokens of a store (data/rows/teacher_lists.h), in a file beside it. It
// has 8 bytes an entry, several hundred a token, so it is read by the sequence when a batch needs it and never held in
// memory.
//
// File: 96 bytes of text, "colonnade teacher 1 <key of the store>\n" and zeros. Then 32-bit little-endian words; of each
// sequence, at its TeacherPlace:
//     CRC-32 of the words that follow; number of tokens; of each token the number of its entries, their ids, and the bits
//     of their float32 log-probabilities

#include <string>
#include <vector>

#include "data/samples/sample.h"
#include "engine/io/files.h"

namespace colonnade {

/// Appends the lists of a sequence to `words`, the words of a file from some place on. Returns their place relative to
/// that.
TeacherPlace append_words(const TeacherLists& lists, std::vector<uint32_t>& words);

/// Writes such a file front to back: temporary name, fsync, rename. Throws Exit::storage.
class TeacherFileWriter {
  public:
    TeacherFileWriter(const std::string& path, const std::string& key);
    int64_t words() const { return words_; }  ///< of the file so far
    void append(const std::vector<uint32_t>& words);
    void commit();

  private:
    FileCommit commit_;
    OutputFile file_;
    int64_t words_ = 0;
};

/// Reads such a file. Thread-safe.
class TeacherFile {
  public:
    /// Throws Exit::data, with the advice to delete the file, unless it is of this store and has `words` words.
    TeacherFile(const std::string& path, const std::string& key, int64_t words, int64_t vocab_size);
    /// Throws Exit::data for a place whose bytes are not what was written.
    TeacherLists read(const TeacherPlace& place) const;
    /// Fills Sequence::teacher of every sequence.
    void fill(Sample& sample) const;

  private:
    [[noreturn]] void refuse(const std::string& what) const;

    InputFile file_;
    int64_t words_, vocab_size_;
};

}  // namespace colonnade
