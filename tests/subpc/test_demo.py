"""The demonstration's first part, on the real pretrained network and a real picture."""

from pathlib import Path

import pytest

from subpc import demo
from subpc.errors import ConfigError


def test_the_pretrained_network_sees_the_cat(tmp_path: Path) -> None:
    stages: list[str] = []
    seen = demo.recognise(None, tmp_path, None, lambda stage, done, total: stages.append(stage))
    assert seen.picture.name == "chelsea.png"
    assert "cat" in seen.classes[0][1]
    assert [index for index, _, _ in seen.classes[:2]] in ([285, 282], [282, 285], [285, 281], [281, 285], [282, 281])
    assert len(seen.classes) == 5
    assert stages


def test_a_missing_package_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the demo needs no-such-package; install it with: pip install no-such-package --no-deps"):
        demo.packaged("no_such_package", "file", "no-such-package --no-deps")
