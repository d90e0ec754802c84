"""The llama.cpp inside the Python package xllamacpp, through its C interface: models, token ids, logits, adapters."""
import ctypes
import glob
import importlib.util
import os

import numpy

WARNING, ERROR = 3, 4


class Parameters(ctypes.Structure):
    """Any struct of parameters, passed by value. It may be larger than the library's own, so that versions do not matter."""
    _fields_ = [("bytes", ctypes.c_uint8 * 2048)]


class Batch(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embedding", ctypes.c_void_p),
                ("position", ctypes.POINTER(ctypes.c_int32)), ("sequences", ctypes.POINTER(ctypes.c_int32)),
                ("sequence", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("output", ctypes.POINTER(ctypes.c_int8))]


def load_library():
    package = importlib.util.find_spec("xllamacpp")
    if package is None:
        raise ImportError("xllamacpp is not installed")
    library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(package.origin), "xllamacpp*.so"))[0])
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in [
            ("llama_backend_init", None, []),
            ("llama_model_default_params", pointer, [pointer]),
            ("llama_context_default_params", pointer, [pointer]),
            ("llama_model_load_from_file", pointer, [text, Parameters]),
            ("llama_model_free", None, [pointer]),
            ("llama_init_from_model", pointer, [pointer, Parameters]),
            ("llama_free", None, [pointer]),
            ("llama_batch_init", Batch, [ctypes.c_int32] * 3),
            ("llama_batch_free", None, [Batch]),
            ("llama_decode", integer, [pointer, Batch]),
            ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, integer]),
            ("llama_model_get_vocab", pointer, [pointer]),
            ("llama_vocab_n_tokens", integer, [pointer]),
            ("llama_vocab_bos", integer, [pointer]),
            ("llama_vocab_eos", integer, [pointer]),
            ("llama_vocab_is_eog", ctypes.c_bool, [pointer, integer]),
            ("llama_model_chat_template", text, [pointer, text]),
            ("llama_tokenize", integer, [pointer, text, integer, ctypes.POINTER(ctypes.c_int32), integer, ctypes.c_bool,
                                         ctypes.c_bool]),
            ("llama_adapter_lora_init", pointer, [pointer, text]),
            ("llama_set_adapters_lora", integer, [pointer, pointer, ctypes.c_size_t, pointer])]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


library = load_library()
messages = []


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def keep_message(level, text, _):
    messages.append((level, text.decode("utf-8", "replace")))


library.llama_log_set(keep_message, None)
library.llama_backend_init()


def default_parameters(function):
    parameters = Parameters()
    getattr(library, function)(ctypes.byref(parameters))
    return parameters


class Model:
    def __init__(self, path):
        messages.clear()
        self.model = library.llama_model_load_from_file(path.encode(), default_parameters("llama_model_default_params"))
        if not self.model:
            raise RuntimeError(f"{path}: " + "".join(text for level, text in messages if level >= ERROR).strip())
        self.warnings = "".join(text for level, text in messages if level == WARNING)
        self.vocabulary = library.llama_model_get_vocab(self.model)
        self.tokens = library.llama_vocab_n_tokens(self.vocabulary)

    def __del__(self):
        if getattr(self, "model", None):
            library.llama_model_free(self.model)

    def tokenize(self, text, special=False, add_special=True):
        data = text.encode()
        ids = (ctypes.c_int32 * (2 * len(data) + 16))()
        count = library.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), add_special, special)
        return list(ids[:count])

    def ends_answers(self, token):
        return library.llama_vocab_is_eog(self.vocabulary, token)

    def chat_template(self):
        source = library.llama_model_chat_template(self.model, None)
        return source.decode() if source else None

    def logits(self, ids, adapter=None):
        """Logits [ids, tokens]; `adapter`: path of a GGUF file."""
        parameters = default_parameters("llama_context_default_params")
        ctypes.cast(ctypes.byref(parameters), ctypes.POINTER(ctypes.c_uint32))[0] = max(256, len(ids))  # n_ctx
        context = library.llama_init_from_model(self.model, parameters)
        if adapter:
            loaded = library.llama_adapter_lora_init(self.model, adapter.encode())
            if not loaded:
                raise RuntimeError(f"{adapter}: " + "".join(text for level, text in messages if level >= ERROR).strip())
            adapters, scales = (ctypes.c_void_p * 1)(loaded), (ctypes.c_float * 1)(1.0)
            assert library.llama_set_adapters_lora(context, ctypes.cast(adapters, ctypes.c_void_p), 1,
                                                   ctypes.cast(scales, ctypes.c_void_p)) == 0
        batch = library.llama_batch_init(len(ids), 0, 1)
        batch.count = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.position[i], batch.sequences[i], batch.output[i] = token, i, 1, 1
            batch.sequence[i][0] = 0
        assert library.llama_decode(context, batch) == 0
        rows = [numpy.ctypeslib.as_array(library.llama_get_logits_ith(context, i), (self.tokens,)).copy()
                for i in range(len(ids))]
        library.llama_batch_free(batch)
        library.llama_free(context)
        return numpy.array(rows, dtype=numpy.float64)
