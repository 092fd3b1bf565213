import decimal

import numpy as np
import pytest

from jdec.datasets._labels import encode_labels


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [
        (["1", "01", "1.0"], [1, 0, 2], ("01", "1", "1.0")),
        ([2**63, 2**63 + 1, 2**63], [0, 1, 0], None),
        ([2**63, -1, 2**80], [1, 0, 2], None),
        ([2**53, 2**53 + 1, 2**53], [0, 1, 0], None),
        ([3, 1.0, np.int8(1)], [1, 0, 0], None),
        ([True, False, np.True_], [1, 0, 1], None),
        (("b", "a", np.str_("b")), [1, 0, 1], ("a", "b")),
        ([b"b", b"a", b"b"], [1, 0, 1], ("a", "b")),
        ([["b"], ["a"], ["b"]], [1, 0, 1], ("a", "b")),
        (np.array(["b", "a", "b"], object), [1, 0, 1], ("a", "b")),
        (np.array(["b", "a", "b"], np.dtypes.StringDType()), [1, 0, 1], ("a", "b")),
        ([decimal.Decimal(2**70), decimal.Decimal(2**70 + 1), 1], [1, 2, 0], None),
    ],
)
def test_labels_of_python_are_not_merged(labels, y, names):
    codes, class_names = encode_labels("y", labels, np.zeros((3, 1)))
    assert codes.tolist() == y
    assert codes.dtype == np.int64
    assert class_names == names


@pytest.mark.parametrize(
    ("labels", "needed"),
    [
        ([1, "1", 2], "expected labels of one kind, got text ('1') in row 1 beside a whole number"),
        (["1", 2, "3"], "expected labels of one kind, got a whole number (2) in row 1"),
        ([True, 1, 0], "expected labels of one kind"),
        ([b"a", "a", "b"], "expected labels of one kind"),
        (["a", None, "b"], "got None in row 1"),
        (["a", float("nan"), "b"], "got nan in row 1"),
        ([1, 1.5, 2], "got 1.5 in row 1"),
        (
            [1, 2.0**53, 2],
            "beyond which float64 rounds whole numbers, got 9007199254740992 in row 1",
        ),
        ([1, 2], "expected as many entries as x has (3), got 2"),
        ([[1], [2, 3], [4]], "got [1] in row 0"),
        ([1j, 1, 2], "got 1j in row 0"),
        ([np.datetime64(1, "s")] * 3, "expected a class"),
        ([np.timedelta64(1, "s")] * 3, "expected a class"),
        ([object()] * 3, "expected a class"),
    ],
)
def test_labels_of_several_kinds_are_rejected(labels, needed):
    with pytest.raises(ValueError, match="y: expected") as caught:
        encode_labels("y", labels, np.zeros((3, 1)))
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)
