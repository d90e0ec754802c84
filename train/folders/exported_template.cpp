#include "train/folders/exported_template.h"

namespace colonnade {

const ChatTemplate* replacing_template(const Encoder& encoder) {
    const ChatTemplate& chosen = encoder.chat_template();
    const bool written = !chosen.is_of_model() && (chosen.name() != "chatml" || encoder.spelled_out().empty());
    return written ? &chosen : nullptr;
}

}  // namespace colonnade
