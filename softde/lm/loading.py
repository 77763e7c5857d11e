"""Loading a causal language model and its tokenizer, with one clear sentence for everything that goes wrong."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TINY_FOLDER = Path(__file__).parent / "tiny"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
UNGATED = "Qwen/Qwen3-8B"


def load(
    name_or_path: str | Path,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    quantization: Any = None,
) -> tuple[Any, Any, str, str | None]:
    """(model, tokenizer, name, revision), the model on its device, frozen.

    device : "auto" spreads a model that is too large for one device over all there are. quantization : None, "int8"
    (torchao, weights only), "int4" (bitsandbytes, NF4), or a quantization config of transformers.

    Raises
    ------
    ValueError
        One sentence, for everything that goes wrong.
    ImportError
        A package is missing that this device or quantization needs; said before weights are read.
    """
    wanted_dtype = parse_dtype(dtype)
    wanted_device = None if device == AUTO else parse_device(device)
    if wanted_device is None:
        require("accelerate", "device='auto'")
    if wanted_dtype is None and _runs_on_cpu(wanted_device):
        wanted_dtype = torch.float32
    quantization = quantization_config(quantization, wanted_dtype)
    name = str(name_or_path)
    source = str(locate(name))
    with quiet():
        config = _config(name, source, revision)
        stored = getattr(config, "quantization_config", None)
        if stored is not None and quantization is not None:
            method = stored.get("quant_method") if isinstance(stored, dict) else stored.quant_method
            raise ValueError(f"model {name!r} is quantised already ({method}); leave out quantization")
        tokenizer = _tokenizer(name, source, revision)
        where = Where(wanted_device, quantization, quantised=quantization is not None or stored is not None)
        model = _model(name, source, revision, wanted_dtype, where)
    found = getattr(config, "_commit_hash", None) or revision
    return model, tokenizer, name, _digest(TINY_FOLDER / "model.safetensors") if name == "tiny" else found


def skeleton(name_or_path: str | Path, revision: str | None = None) -> tuple[Any, Any]:
    """(model without weights, tokenizer): all that a plan or an export needs."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    name = str(name_or_path)
    source = str(locate(name))
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            return model, AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise ValueError(explain(error, name, revision, "its configuration and tokenizer cannot be read")) from error


@dataclass(frozen=True)
class Where:
    """A device, None for all there are, and what is made of the weights on the way."""

    device: torch.device | None
    quantization: Any = None
    quantised: bool = False

    @property
    def device_map(self) -> str | dict[str, torch.device] | None:
        """Quantised weights have to be made where they stay: some cannot be moved."""
        if self.device is None:
            return AUTO
        return {"": self.device} if self.quantised else None


def quantization_config(wanted: Any, dtype: torch.dtype | None = None) -> Any:
    """A quantization config of transformers for "int8" or "int4"; a config and None stay what they are."""
    if wanted is None or hasattr(wanted, "quant_method"):
        return wanted
    if wanted == "int8":
        require("accelerate", "quantization='int8'")
        require("torchao", "quantization='int8'")
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    if wanted == "int4":
        require("accelerate", "quantization='int4'")
        require("bitsandbytes", "quantization='int4'")
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype or torch.bfloat16
        )
    raise ValueError(
        f"quantization: expected None, 'int8', 'int4' or a quantization config of transformers, got {wanted!r}"
    )


def require(package: str, what: str) -> None:
    """Say what to install if a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{what} needs the package {package}: pip install {package}")


def _runs_on_cpu(device: torch.device | None) -> bool:
    return device.type == "cpu" if device is not None else not torch.cuda.is_available()


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A floating dtype by name or as torch has it; None stays None."""
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES.values()):
        return dtype
    known = str(dtype).removeprefix("torch.")
    if known not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)} (or None for the default), got {str(dtype)!r}")
    return DTYPES[known]


def parse_device(device: str | torch.device | None) -> torch.device:
    """A torch device that is present; None is cuda if there is one, else cpu."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device: expected 'cpu', 'cuda' or 'cuda:N', got {str(device)!r}; 'auto' takes all there are"
        ) from None
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {str(device)!r} was asked for but torch sees no CUDA device; use device='cpu'")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {str(device)!r} was asked for but torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device: 'mps' was asked for but torch sees none; use device='cpu'")
    return wanted


def locate(name: str) -> Path | str:
    """The embedded folder for "tiny", a folder with a config.json, or a Hub name as it is."""
    if name == "tiny":
        if not (TINY_FOLDER / "model.safetensors").exists():
            raise ValueError(
                "the embedded model 'tiny' is not in this installation; reinstall softde, or name another model"
            )
        return TINY_FOLDER
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        if not (path / "config.json").exists():
            raise ValueError(f"{name!r} is a folder without a config.json; give the folder of a Hugging Face model")
        return path
    if name.strip() and path.exists():
        raise ValueError(f"{name!r} is a file; give the folder of a Hugging Face model")
    if not name.strip() or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ValueError(
            f"there is no folder {name!r}; give an existing folder, a Hub name like {UNGATED!r}, or 'tiny'"
        )
    return name


def _config(name: str, source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise ValueError(explain(error, name, revision, "its config.json cannot be read")) from error


def _tokenizer(name: str, source: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        if set(tokenizer("the number 1", add_special_tokens=False)["input_ids"]) <= {tokenizer.unk_token_id}:
            raise LookupError("it knows no text")  # some versions make an empty one where the files are missing
        return tokenizer
    except Exception as error:
        remedy = "it has no tokenizer that can be loaded; add its tokenizer.json and tokenizer_config.json"
        raise ValueError(explain(error, name, revision, remedy)) from error


def _model(name: str, source: str, revision: str | None, dtype: torch.dtype | None, where: Where) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=dtype or "auto",
            use_safetensors=_use_safetensors(source),
            trust_remote_code=False,
            output_loading_info=True,
            device_map=where.device_map,
            **({} if where.quantization is None else {"quantization_config": where.quantization}),  # None would delete
        )
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise LookupError(f"its weights lack {missing}; give a complete checkpoint of a causal language model")
        if where.device_map is None:
            model.to(where.device)
        return model.eval().requires_grad_(False)
    except ImportError as error:  # a checkpoint's own quantization; transformers names the package
        raise ImportError(f"model {name!r}: {' '.join(str(error).split())}") from error
    except LookupError as error:
        if isinstance(error, (KeyError, IndexError)):
            raise ValueError(explain(error, name, revision, "its weights cannot be loaded")) from error
        raise ValueError(f"model {name!r}: {error}") from None
    except Exception as error:
        raise ValueError(explain(error, name, revision, "its weights cannot be loaded")) from error


def _use_safetensors(source: str) -> bool | None:
    """True for a folder that has them; None lets transformers prefer them."""
    return True if Path(source).is_dir() and any(Path(source).glob("*.safetensors")) else None


def explain(error: BaseException, name: str, revision: str | None, otherwise: str) -> str:
    """One sentence for a failure, from the exceptions it was raised from."""
    chain = list(_causes(error))
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    text = " ".join(str(link) for link in chain).lower()
    if kinds & {"OutOfMemoryError", "MemoryError"} or "can't allocate memory" in text:
        return f"model {name!r}: out of memory while loading; use dtype='bfloat16', a smaller model, or a larger device"
    if "GatedRepoError" in kinds or "gated repo" in text:
        return (
            f"model {name!r} is gated: accept its licence at https://huggingface.co/{name} and run `hf auth login`, "
            f"or take an ungated model such as {UNGATED!r}"
        )
    if "RevisionNotFoundError" in kinds:
        return f"model {name!r} has no revision {revision!r}; give a branch, tag or commit of that repository"
    if "HFValidationError" in kinds:
        return f"{name!r} is no folder and no Hub name; give an existing folder, a name like {UNGATED!r}, or 'tiny'"
    if "RepositoryNotFoundError" in kinds:
        return (
            f"model {name!r} is no folder and no repository on the Hugging Face Hub; check the spelling, "
            "or run `hf auth login` if it is private"
        )
    if kinds & {
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectionError",
        "ConnectError",
        "TimeoutException",
    } or ("couldn't connect" in text or "offline mode" in text):
        return (
            f"model {name!r} is no folder, is not in the local cache, and the Hugging Face Hub cannot be reached; "
            "connect to the network, give the folder of a downloaded model, or use 'tiny'"
        )
    if "trust_remote_code" in text:
        return (
            f"model {name!r} needs code from its repository, which softde does not run; take one that transformers has"
        )
    if "AutoModelForCausalLM" in "".join(str(link) for link in chain):
        return f"model {name!r} is no causal language model; take one that transformers loads as AutoModelForCausalLM"
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return f"model {name!r}: {otherwise} ({type(error).__name__}: {first[:160]})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, load reports or warnings of transformers; downloads from the Hub keep their bars."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _digest(file: Path) -> str:
    """The embedded model's revision: the start of the SHA-256 of its weights."""
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()[:16]
