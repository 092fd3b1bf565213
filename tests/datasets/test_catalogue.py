from jdec.datasets import catalogue


def test_known_sources_have_checksums():
    for spec in catalogue.SPECS.values():
        if spec.archive[0]:
            assert len(bytes.fromhex(spec.archive[1].removeprefix("md5:"))) == 16
            assert all(len(bytes.fromhex(md5)) == 16 for md5 in spec.files.values())
        elif spec.url:
            assert spec.url.endswith("/")
            assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in spec.files.values())
