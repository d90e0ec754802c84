// tokenizer train: trains a SentencePiece model on text and data.

#include <filesystem>

#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"
#include "engine/program/command_line.h"
#include "train/run/local_names.h"

namespace colonnade {

namespace {

/// The file of a text, or the files of data.
std::vector<std::string> files_of(const std::string& text, LocalNames& names) {
    DatasetSpec set{.path = text};
    set.path = names.training_data(set);
    std::error_code none;
    const bool file = std::filesystem::exists(set.path, none) && !std::filesystem::is_directory(set.path, none);
    return file ? std::vector<std::string>{set.path} : data_files(set).paths;
}

}  // namespace

Work train_tokenizer_command(CLI::App& app) {
    const auto shared = std::make_shared<TokenizerTraining>();
    TokenizerTraining& o = *shared;
    app.add_option("--text", o.text_files,
                   "text file, or data: a file (.jsonl, .json, .parquet, ...), folder, glob or name on the hub; may be "
                   "repeated")
        ->required()
        ->type_name("DATA");
    app.add_option("--output", o.output, "path without extension; writes OUTPUT.model and OUTPUT.vocab")
        ->required()
        ->type_name("FILE");
    app.add_option("--vocab-size", o.vocab_size, "number of pieces")->capture_default_str();
    app.add_option("--model-type", o.model_type, "kind of model")
        ->capture_default_str()
        ->check(CLI::IsMember({"bpe", "unigram"}));
    app.add_option("--special", o.special_tokens,
                   "text that is always one token, such as <|im_start|>; may be repeated");
    app.add_option("--threads", o.threads, "number of threads")->capture_default_str();
    return [shared] {
        TokenizerTraining options = *shared;
        LocalNames names;
        options.text_files.clear();
        for (const std::string& text : shared->text_files)
            for (std::string& file : files_of(text, names)) options.text_files.push_back(std::move(file));
        for (const std::string& notice : names.notices()) fmt::print(stderr, "note: {}\n", notice);
        train_tokenizer(options);
        const auto tokenizer = Tokenizer::load(options.output + ".model");
        fmt::print("{}: {} pieces\n", tokenizer->path(), tokenizer->vocab_size());
        return 0;
    };
}

}  // namespace colonnade
