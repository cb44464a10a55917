"""Drivers by name, and the words that users have for what drivers know."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from banger.config import Config
from banger.core import vmm_names
from banger.core.drivers import Drivers
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import DEVICE_WORDS
from banger.core.wire.vm_spec import VmSpec
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm import survey
from banger.vmm.drivers import all_drivers
from banger.vmm.qemu.arguments import ACCELERATORS, MACHINES

ONE, TWO = SimpleNamespace(name="one"), SimpleNamespace(name="two")


def layout_and_config(tmp_path, **env):
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    return layout, Config.load(layout.config_file, env)


def test_driver_is_found_by_its_name_and_the_default_for_none():
    drivers = Drivers("kind of driver", [ONE, TWO], "two")
    assert drivers.chosen("") is drivers.default is TWO
    assert drivers.chosen("one") is ONE
    assert (drivers.names, list(drivers)) == (("one", "two"), [ONE, TWO])


@pytest.mark.parametrize("ask", [lambda drivers: drivers.named("three"), lambda drivers: drivers.chosen("three")])
def test_unknown_driver_is_an_error_that_names_the_known_ones(ask):
    with pytest.raises(BangerError, match='there is no kind of driver "three"') as caught:
        ask(Drivers("kind of driver", [ONE, TWO], "one"))
    assert caught.value.kind is ErrorKind.USAGE
    assert caught.value.hint == "choose from one, two"


def test_unknown_default_is_told_before_anything_is_served():
    with pytest.raises(BangerError, match="three"):
        Drivers("kind of driver", [ONE], "three")


def test_unknown_vmm_driver_in_the_settings_is_an_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(BangerError) as caught:
        layout_and_config(tmp_path, BANGER_VMM_DRIVER="bochs")
    assert "vmm.driver" in caught.value.message
    assert "qemu" in caught.value.cause


def test_every_vmm_driver_is_made_probed_and_can_be_set(tmp_path):
    layout, config = layout_and_config(tmp_path)
    drivers = all_drivers(config, layout, Launching(config, "0123456789ab", {}))
    assert drivers.names == vmm_names.DRIVERS
    assert set(survey._PROBES) == set(survey._ENGINES) == set(vmm_names.DRIVERS)
    assert (config.text("vmm.driver"), drivers.default.name) == ("auto", "qemu")
    layout, config = layout_and_config(tmp_path, BANGER_VMM_DRIVER="firecracker")
    assert all_drivers(config, layout, Launching(config, "0123456789ab", {})).default.name == "firecracker"


def test_words_of_users_are_what_the_driver_knows():
    assert tuple(MACHINES) == vmm_names.MACHINES
    assert tuple(ACCELERATORS) == vmm_names.ACCELERATORS


def test_every_kind_of_device_has_words_for_an_error(tmp_path):
    layout, config = layout_and_config(tmp_path)
    for driver in all_drivers(config, layout, Launching(config, "0123456789ab", {})):
        assert set(driver.devices) <= set(DEVICE_WORDS)


def test_machine_that_qemu_does_not_have_is_refused_and_another_one_is_known(tmp_path):
    layout, config = layout_and_config(tmp_path)
    driver = all_drivers(config, layout, Launching(config, "0123456789ab", {})).named("qemu")
    with pytest.raises(BangerError, match='QEMU has no machine "pdp11"'):
        driver.options(VmSpec("debian", machine="pdp11"))
    assert driver.options(VmSpec("debian", machine="q35", accelerator="tcg")) == {"machine": "q35"}
    assert driver.alternative(VmSpec("debian")) == "--machine q35"
    assert driver.alternative(VmSpec("debian", machine="q35")) == "--machine microvm"
