"""SIDs as text and as codes: the layouts in use, round trips, and every refusal."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.errors import SidError
from model_store.sid import END, Level, SidSpec, infer_spec, level_tokens

FOUR = SidSpec(tuple(Level(f"<{letter}_{{}}>", 256) for letter in "abcd"))
FIVE = SidSpec((*FOUR.levels, Level("<e_{}>", 8)), extra=True)
THREE = SidSpec(FOUR.levels[:3])
ONEREC = SidSpec(
    tuple(Level(f"<s_{letter}_{{}}>", 8192) for letter in "abc"),
    opening="<|sid_begin|>",
    closing="<|sid_end|>",
)
LAYOUTS = {
    "<a_99><b_225><c_67><d_242>": (FOUR, [99, 225, 67, 242]),
    "<a_99><b_225><c_67><d_242><e_0>": (FIVE, [99, 225, 67, 242, 0]),
    "<a_0><b_255><c_7>": (THREE, [0, 255, 7]),
    "<|sid_begin|><s_a_340><s_b_6566><s_c_5603><|sid_end|>": (ONEREC, [340, 6566, 5603]),
}
SPECS = [FOUR, FIVE, THREE, ONEREC]


def code_rows(spec: SidSpec) -> st.SearchStrategy[list[list[int]]]:
    last = len(spec.levels) - 1
    row = [
        st.integers(END if spec.extra and i == last else 0, level.size - 1)
        for i, level in enumerate(spec.levels)
    ]
    return st.lists(st.tuples(*row).map(list), min_size=1, max_size=20)


class TestRoundTrip:
    @pytest.mark.parametrize("sid", LAYOUTS)
    def test_layouts_in_use(self, sid: str) -> None:
        spec, codes = LAYOUTS[sid]
        assert spec.parse([sid]).tolist() == [codes]
        assert spec.format(codes) == sid
        assert spec.depth == len(codes)

    @given(st.sampled_from(SPECS).flatmap(lambda s: st.tuples(st.just(s), code_rows(s))))
    @settings(deadline=None)
    def test_texts_and_format_agree_and_parse_reads_them_back(
        self, drawn: tuple[SidSpec, list[list[int]]]
    ) -> None:
        spec, rows = drawn
        codes = np.array(rows, np.int32)
        texts = spec.texts(codes)
        assert texts.to_pylist() == [spec.format(row) for row in rows]
        assert spec.parse(texts).tolist() == rows
        assert spec.parse(texts).dtype == np.int32

    @given(st.sampled_from(SPECS).flatmap(lambda s: st.tuples(st.just(s), code_rows(s))))
    @settings(deadline=None)
    def test_the_inferred_spec_reads_the_same_codes(
        self, drawn: tuple[SidSpec, list[list[int]]]
    ) -> None:
        spec, rows = drawn
        texts = spec.texts(np.array(rows, np.int32))
        inferred = infer_spec(texts)
        # Where every item has the extra token, or none has, it looks like any other level.
        parsed = inferred.parse(texts)
        assert [[c for c in row if c != END] for row in parsed.tolist()] == [
            [c for c in row if c != END] for row in rows
        ]
        assert [level.size for level in inferred.levels] == (parsed.max(axis=0) + 1).tolist()

    def test_a_missing_extra_token_is_end(self) -> None:
        sids = ["<a_1><b_2><c_3><d_4>", "<a_1><b_2><c_3><d_4><e_7>"]
        codes = FIVE.parse(sids)
        assert codes.tolist() == [[1, 2, 3, 4, END], [1, 2, 3, 4, 7]]
        assert FIVE.texts(codes).to_pylist() == sids

    def test_no_sids_are_no_codes(self) -> None:
        assert FOUR.parse([]).shape == (0, 4)

    def test_an_extra_token_stands_before_the_closing_text(self) -> None:
        spec = SidSpec((Level("<x{}>", 4), Level("<y{}>", 4)), True, "<(>", "<)>")
        sids = ["<(><x3><)>", "<(><x3><y0><)>"]
        assert spec.parse(sids).tolist() == [[3, END], [3, 0]]
        assert spec.texts(spec.parse(sids)).to_pylist() == sids

    def test_characters_with_a_meaning_in_patterns_are_plain_text(self) -> None:
        sids = ["<|a.*+_1|><[b]$^_2>", "<|a.*+_0|><[b]$^_9>"]
        spec = infer_spec(sids)
        assert spec.parse(sids).tolist() == [[1, 2], [0, 9]]
        assert spec.texts(spec.parse(sids)).to_pylist() == sids
        with pytest.raises(SidError):
            spec.parse(["<|aXYZ_1|><[b]$^_2>"])


class TestParseRefuses:
    @pytest.mark.parametrize(
        "sid",
        [
            "",
            "banana",
            "<a_1><b_2><c_3>",
            "<a_1><b_2><c_3><d_4><e_0>",
            "<b_2><a_1><c_3><d_4>",
            "<a_1> <b_2><c_3><d_4>",
            " <a_1><b_2><c_3><d_4>",
            "<a_1><b_2><c_3><d_4>\n",
            "<a_-1><b_2><c_3><d_4>",
            "<a_><b_2><c_3><d_4>",
            "<a_12345678901234567890><b_2><c_3><d_4>",
            "<a_٣><b_2><c_3><d_4>",
            "<a_007><b_2><c_3><d_4>",
        ],
    )
    def test_another_form(self, sid: str) -> None:
        with pytest.raises(SidError) as caught:
            FOUR.parse(["<a_1><b_2><c_3><d_4>", sid])
        assert str(caught.value) == (
            f"1 SIDs do not have the form <a_0><b_0><c_0><d_0>, such as {[sid]}"
        )

    def test_none(self) -> None:
        with pytest.raises(SidError, match=r"1 SIDs do not have the form .* \[None\]"):
            FOUR.parse(pa.array([None, "<a_1><b_2><c_3><d_4>"], pa.string()))

    def test_three_of_many_are_named(self) -> None:
        with pytest.raises(SidError, match=r"^5 SIDs .* \['x0', 'x1', 'x2'\]$"):
            FOUR.parse([f"x{i}" for i in range(5)])

    def test_a_code_outside_its_codebook(self) -> None:
        sids = ["<a_1><b_256><c_3><d_4>", "<a_1><b_300><c_3><d_4>", "<a_1><b_255><c_3><d_4>"]
        with pytest.raises(SidError) as caught:
            FOUR.parse(sids)
        assert str(caught.value) == (
            "level 2: 2 codes lie outside the codebook 0..255, such as 256"
        )

    @pytest.mark.parametrize("row", [[END, 0, 0, 0], [0, 0, 0, END], [0, -2, 0, 0]])
    def test_check_wants_every_code_of_a_spec_without_extra(self, row: list[int]) -> None:
        with pytest.raises(SidError, match="outside the codebook"):
            FOUR.check(np.array([row], np.int32))

    def test_check_lets_only_the_extra_code_be_missing(self) -> None:
        FIVE.check(np.array([[0, 0, 0, 0, END]], np.int32))
        with pytest.raises(SidError, match="level 4"):
            FIVE.check(np.array([[0, 0, 0, END, END]], np.int32))


class TestInfer:
    def test_sizes_without_a_vocabulary_are_what_the_sids_need(self) -> None:
        spec = infer_spec(["<a_1><b_2>", "<a_0><b_9>"])
        assert spec == SidSpec((Level("<a_{}>", 2), Level("<b_{}>", 10)))

    def test_a_vocabulary_widens_codebooks_and_never_narrows_them(self) -> None:
        vocabulary = [*(f"<a_{i}>" for i in range(256)), "<b_3>", "<c_900>", "b_4000", "the"]
        spec = infer_spec(["<a_1><b_7>"], vocabulary)
        assert [level.size for level in spec.levels] == [256, 8]

    @pytest.mark.parametrize("spec", SPECS, ids=["four", "extra", "three", "onerec"])
    def test_layouts_in_use(self, spec: SidSpec) -> None:
        vocabulary = [level.token(code) for level in spec.levels for code in range(level.size)]
        rows = [[1] * spec.depth, [2] * spec.depth]
        if spec.extra:
            rows[0][-1] = END
        assert infer_spec([spec.format(row) for row in rows], vocabulary) == spec

    def test_numbers_inside_a_template_stay(self) -> None:
        assert infer_spec(["<l1_5><l2_6>"]).levels == (Level("<l1_{}>", 6), Level("<l2_{}>", 7))

    def test_a_column_does_as_well_as_a_list(self) -> None:
        assert infer_spec(pa.array(["<a_1>"])) == infer_spec(["<a_1>"])

    @pytest.mark.parametrize(
        ("sids", "message"),
        [
            ([], "there are no SIDs"),
            (["banana"], "'banana' is not a sequence of <…> tokens"),
            (["<a_1> <b_2>"], "is not a sequence of <…> tokens"),
            (["<a_1><b_2>tail"], "is not a sequence of <…> tokens"),
            (["<a_1>", "<a_1><b_2><c_3>"], "SIDs differ by more than one token"),
            (["None", "<a_1><b_2>"], "SIDs differ by more than one token"),
            (["<begin><end>"], "has no unbroken run of numbered tokens"),
            (["<a_1><mid><b_2>"], "has no unbroken run of numbered tokens"),
            (["<a_1><a_2>"], "writes two levels the same way"),
            (["<a_1><b_2>", "<a_1><c_2>"], r"1 SIDs do not have the form <a_0><b_0>"),
            (["<a_1><b_2>", "<b_1>"], r"1 SIDs do not have the form <a_0><b_0>"),
            (["<a_1>", "<a_2>", "b_2"], "1 SIDs do not have the form <a_0>"),
            (["<a_1><b_2>", "<a_1><b_99999999999>"], "1 SIDs do not have the form <a_0><b_0>"),
            (["<a_1><b_01>"], "1 SIDs do not have the form <a_0><b_0>"),
            (["<a_{}_1>"], "'<a_{}_{}>' needs one {} for the code, and no other braces"),
            (["<a_{x}_1>"], "'<a_{x}_{}>' needs one {} for the code, and no other braces"),
            (["<a_1><b_999999999>"], "level 2: 1 codes lie outside the codebook 0..1048575"),
        ],
    )
    def test_refusals(self, sids: list[str], message: str) -> None:
        with pytest.raises(SidError, match=message):
            infer_spec(sids)

    def test_a_huge_number_in_the_vocabulary_is_no_codebook(self) -> None:
        with pytest.raises(SidError, match=r"'<a_\{\}>' has a codebook of 12345678901234567891"):
            infer_spec(["<a_1>"], ["<a_1>", "<a_12345678901234567890>"])


class TestLevel:
    @pytest.mark.parametrize("template", ["", "<a_1>", "<a_{}{}>", "<a_{0}>", "<{a}_{}>", "}{}"])
    def test_a_template_has_one_place(self, template: str) -> None:
        with pytest.raises(SidError, match=r"needs one \{\} for the code"):
            Level(template, 4)

    @pytest.mark.parametrize("size", [-1, 0, 10**9])
    def test_a_codebook_has_a_size_that_a_vocabulary_can_hold(self, size: int) -> None:
        with pytest.raises(SidError, match=f"has a codebook of {size}, outside 1..1048576"):
            Level("<a_{}>", size)


class TestLevelTokens:
    def test_ids_per_code_and_minus_one_for_a_token_that_is_missing(self) -> None:
        vocabulary = {"<a_0>": 7, "<a_1>": 3, "<b_1>": 5}
        spec = SidSpec((Level("<a_{}>", 2), Level("<b_{}>", 3)))
        tokens = level_tokens(spec, vocabulary.get)
        assert [ids.tolist() for ids in tokens] == [[7, 3], [-1, 5, -1]]
