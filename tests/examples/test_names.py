"""The example on names: its reader, its split, its baseline and scores, and a small run."""

import pathlib
import sys
import types

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import names


def write(folder, **languages):
    folder.mkdir()
    for language, lines in languages.items():
        (folder / f"{language}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "SOURCE.txt").write_text("Somewhere\n")
    return folder


def test_names_are_read_once_for_each_language(tmp_path):
    folder = write(tmp_path / "names", Czech=["Adam", "adam ", "Novák"], Irish=["Daly", "ADAM", "", "Nova\u0301k"])
    assert names.read_names(folder) == {"Adam": {"Czech", "Irish"}, "Novák": {"Czech", "Irish"}, "Daly": {"Irish"}}


def test_the_split_is_stratified_and_shares_no_name():
    kinds = {("A",): 500, ("B",): 40, ("A", "B"): 10, ("C",): 3}
    every = {f"{'-'.join(kind)} {i}": set(kind) for kind, n in kinds.items() for i in range(n)}
    tested = {kind: [] for kind in kinds}
    for seed in range(40):
        learned, held_out = names.split(every, 0.2, np.random.default_rng(seed))
        assert not set(learned) & set(held_out)
        assert {**learned, **held_out} == every
        for kind in kinds:
            tested[kind].append(sum(found == set(kind) for found in held_out.values()))
    assert set(tested["A",]) <= {100, 101}
    assert set(tested["B",]) <= {8, 9}
    assert set(tested["C",]) == {0, 1}, "rounded by chance"
    assert 0.3 < np.mean(tested["C",]) < 0.9


def test_a_name_is_an_example_for_each_of_its_languages():
    found, labels = names.examples({"Adam": {"B", "A"}, "Daly": {"C"}}, ["A", "B", "C"])
    assert found == ["Adam", "Adam", "Daly"]
    assert labels.tolist() == [0, 1, 2]


def test_scores():
    labels, answers = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    accuracy, f1, confusion = names.scores(labels, answers, 4)
    assert accuracy == 3 / 6
    assert confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # of 0: precision 2/4, recall 2/3; of 1: 1/2 and 1/2; of 2 and 3 nothing is right
    assert f1 == pytest.approx((4 / 7 + 1 / 2 + 0 + 0) / 4)


def test_naive_bayes_by_hand():
    bayes = names.NaiveBayes(["ab", "b", "Ba"], np.array([0, 0, 1]), 2, alpha=0.5, order=2)
    # runs of language 0: ^ a b $ ^a ab b$ ^ b $ ^b b$; of language 1: ^ b a $ ^b ba a$
    counts = {"^": (2, 1), "a": (1, 1), "b": (2, 1), "$": (2, 1), "^a": (1, 0), "ab": (1, 0), "b$": (2, 0)}
    counts |= {"^b": (1, 1), "ba": (0, 1), "a$": (0, 1)}
    assert set(bayes.place) == set(counts)
    for gram, n in counts.items():
        expected = [np.log((n[i] + 0.5) / (total + 0.5 * 11)) for i, total in enumerate((12, 7))]
        np.testing.assert_allclose(bayes.given[bayes.place[gram]], expected)
    np.testing.assert_allclose(np.exp(bayes.prior), [2 / 3, 1 / 3])
    assert bayes.answers(["ab", "BA", "x"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_every_letter_reaches_the_answer_and_padding_does_not(pooling):
    options = types.SimpleNamespace(units=4, pooling=pooling)
    model = names.classifier(range(9), 3, options)
    tokens = np.array([[2, 4, 5, 6, 3]])
    changed = np.repeat(tokens, 5, axis=0)
    changed[np.arange(5), np.arange(5)] = 7
    answer = np.array(model(tokens))
    assert answer.shape == (1, 3)
    assert np.abs(np.array(model(changed)) - answer).max(1).min() > 1e-6
    np.testing.assert_allclose(model(np.pad(tokens, ((0, 0), (0, 3)))), answer, atol=1e-6)


def test_a_small_run(tmp_path, capsys):
    rng = np.random.default_rng(0)

    def drawn(letters, n):
        return ["".join(rng.choice(list(letters), rng.integers(3, 9))).capitalize() for _ in range(n)]

    write(tmp_path / "names", Greek=drawn("aeioukst", 120), Polish=drawn("wzckyaei", 60), Korean=drawn("aeoungh", 40))
    arguments = ["--units", "12", "--epochs", "8", "--batch", "16", "--no-jit", "--learning-rate", "0.02"]
    where = ["--data", str(tmp_path), "--output", str(tmp_path / "out")]
    results = names.main([*arguments, *where])
    out = capsys.readouterr().out
    assert list(results) == ["most frequent", "naive Bayes", "Bidirectional GRU"]
    majority, bayes, gru = results.values()
    assert majority[2][:, 1:].sum() == 0
    assert min(bayes[0], gru[0]) > majority[0] + 0.1
    assert min(bayes[1], gru[1]) > majority[1] + 0.2
    assert all(f"| {name:17} | {r[0]:8.2%} | {r[1]:7.3f} |" in out for name, r in results.items())
    assert "in several" in out
    assert (tmp_path / "out" / "names.png").stat().st_size > 5000


def test_the_real_names(data_folder):
    found = names.read_names(data_folder("names"))
    languages = sorted(set().union(*found.values()))
    assert len(languages) == 18
    assert found["Adam"] == {"English", "French", "German", "Irish", "Russian"}
    assert 17000 < len(found) < 20050
    learned, tested = names.split(found, 0.2, np.random.default_rng(0))
    assert not {n.casefold() for n in learned} & {n.casefold() for n in tested}
    for language in languages:
        counts = [sum(language in of for of in part.values()) for part in (learned, tested)]
        assert counts[1] / sum(counts) == pytest.approx(0.2, abs=0.05)
