import pytest
import torch
from torch import nn

from regnet_backbones import RegNetClassifier, archs, build, get_arch
from regnet_backbones.complexity import complexity
from regnet_backbones.errors import UserError


def test_equal_to_pycls_published_integers(pycls_facts):
    assert len(pycls_facts) == 24
    for name, fact in pycls_facts.items():
        count = complexity(get_arch(name))
        assert (count.params, count.flops, count.acts) == (fact["params"], fact["flops"], fact["acts"]), name


@pytest.mark.parametrize("name", archs())
def test_params_of_the_built_network(name):
    with torch.device("meta"):
        trunk = build(name)
    assert sum(p.numel() for p in trunk.parameters()) == complexity(archs()[name], num_classes=None).params


@pytest.mark.parametrize("name", ["regnetx_200mf", "regnety_400mf", "regnetz_500mf"])
@pytest.mark.parametrize("size", [(224, 224), (97, 131)])
def test_flops_and_acts_by_counting_what_the_layers_do(name, size):
    """A second route: hooks on the built network's convolutions."""
    flops = acts = 0

    def count(module, _, out):
        nonlocal flops, acts
        acts += out.numel()
        flops += out.numel() * (module.weight[0].numel() + (module.bias is not None))

    network = RegNetClassifier(name).eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, *size))
    closed = complexity(get_arch(name), size)
    assert (closed.flops, closed.acts) == (flops, acts)


def test_sizes_by_feature():
    count = complexity(get_arch("regnetx_200mf"), (97, 131))
    assert {n: (f["height"], f["width"]) for n, f in count.by_feature.items()} == {
        "stem": (49, 66), "s1": (25, 33), "s2": (13, 17), "s3": (7, 9), "s4": (4, 5),
    }  # fmt: skip


def test_empty_image():
    with pytest.raises(UserError, match="0x5"):
        complexity(get_arch("regnetx_200mf"), (0, 5))
