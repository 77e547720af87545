"""scikit-learn's real handwritten digits: small enough to ship, real enough to learn from."""

import numpy as np

from longtail import _checks
from longtail.datasets.long_tail import Dataset, Split, long_tail_subset


def digits(test_per_class: int = 50) -> Dataset:
    """Load 1797 real 8x8 handwritten digits with a balanced test split; nothing is downloaded.

    The split is stratified and always the same: within each class, samples are ranked by a hash of their
    index and the first ``test_per_class`` are the test split. Writers are not recorded in the source, so
    the same hand may occur in both splits.

    Args:
        test_per_class: Test samples of every class, at least 1 and at most 173 (the rarest class has 174).

    Returns:
        Images as uint8 of shape (N, 1, 8, 8), grey values 0..16; classes ``"0"`` .. ``"9"``.

    Raises:
        TypeError: ``test_per_class`` is no integer.
        ValueError: ``test_per_class`` leaves a split without a class.
        ModuleNotFoundError: scikit-learn is not installed.

    Example:
        >>> data = digits()
        >>> data.train.inputs.shape, data.test.inputs.shape
        ((1297, 1, 8, 8), (500, 1, 8, 8))

    Source:
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (the part that scikit-learn carries).
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits needs scikit-learn; install it with: pip install 'longtail[train]'", name=error.name
        ) from error

    source = load_digits()
    images = source.images.astype(np.uint8)[:, np.newaxis]
    targets = source.target.astype(np.int64)
    smallest = int(np.bincount(targets).min())
    wanted = _checks.integer("test_per_class", test_per_class, low=1)
    if wanted >= smallest:
        raise ValueError(
            f"test_per_class must be below {smallest}, the size of the smallest class, got {wanted}; "
            "leave some of every class to train on"
        )

    test = long_tail_subset(targets, np.full(10, wanted), seed=0)
    train = np.setdiff1d(np.arange(len(targets)), test)
    return Dataset(
        name="digits",
        train=Split(images[train], targets[train]),
        test=Split(images[test], targets[test]),
        class_names=tuple(str(digit) for digit in range(10)),
    )
