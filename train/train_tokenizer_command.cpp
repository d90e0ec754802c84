// tokenizer train: trains a SentencePiece model on text and data.

#include "data/text/tokenizer.h"
#include "data/text/tokenizer_training.h"
#include "engine/program/command_line.h"
#include "train/run/local_names.h"

namespace colonnade {

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
        for (std::string& text : options.text_files) text = names.data({.path = text});
        for (const std::string& notice : names.notices()) fmt::print(stderr, "note: {}\n", notice);
        train_tokenizer(options);
        const auto tokenizer = Tokenizer::load(options.output + ".model");
        fmt::print("{}: {} pieces\n", tokenizer->path(), tokenizer->vocab_size());
        return 0;
    };
}

}  // namespace colonnade
