from jdec._checks import in_a_line


def test_text_is_cut_to_a_line():
    assert in_a_line(ValueError("a\n b\t c")) == "a b c"
    assert in_a_line(MemoryError()) == "MemoryError"
    assert len(in_a_line("x" * 10**6)) == 301
