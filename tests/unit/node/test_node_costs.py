"""Measurements belong to a kind of device: another processor, accelerator or choice of the operator's starts anew."""

from dimnode.node.costs import device_class

TRAITS = {"os": "linux", "arch": "x86_64", "isa": "avx2", "accelerator": "cpu", "engine": "onnxruntime"}


def test_whatever_changes_how_long_a_model_takes_is_another_kind_of_device() -> None:
    here = device_class(TRAITS, "auto", "")
    others = [
        device_class({**TRAITS, "isa": "avx512"}, "auto", ""),
        device_class({**TRAITS, "accelerator": "cuda"}, "auto", ""),
        device_class(TRAITS, "cpu", ""),
        device_class(TRAITS, "auto", "H100"),
        device_class({}, "auto", ""),
    ]
    assert len({here, *others}) == 6
    assert device_class({**TRAITS, "version": "2"}, "auto", "") == here, "a release does not make a machine slower"
