"""Who waits for a job whose model comes first hears how far it is."""

from dimnode.cli.fetch_news import FetchNews

MIB = 1024 * 1024


class Asked:
    """A node that fetches 100 MiB between two looks, of which 50 were here; and one more model, for somebody else."""

    def __init__(self):
        self.looks = 0

    def ask(self, op):
        assert op == "blobs.progress"
        row = {"what": "pull", "name": "bagaq…", "title": "scribe:1", "bytes": (50 + 100 * self.looks) * MIB}
        row["of"] = 2050 * MIB
        self.looks += 1
        other = {**row, "name": "baga2…", "title": "other:1"}
        add = {"what": "add", "name": "/a/file", "title": "", "bytes": 1, "of": 2}
        return {"progress": [row, other, add, {"what": "fetch", "name": "bafy…", "bytes": 1, "of": 2}]}


def told(capsys, titles, moments):
    asked = Asked()
    news = FetchNews(asked, titles)
    for now in moments:
        news.tell(now)
    return capsys.readouterr().err.splitlines(), asked.looks


def test_the_rate_is_that_of_now_and_the_time_left_follows_from_it(capsys):
    lines, _ = told(capsys, {"scribe:1"}, (100.0, 101.0))
    assert lines == ["fetching scribe:1: 150.0 MiB of 2.0 GiB, 100.0 MiB/s, 19 s left"]


def test_a_rate_of_long_ago_says_nothing_of_the_time_left(capsys):
    lines, _ = told(capsys, {"scribe:1"}, [*range(100, 102), *range(110, 210, 10)])
    assert lines[-1] == "fetching scribe:1: 1.1 GiB of 2.0 GiB, 10.0 MiB/s, 1 min 30 s left"


def test_it_is_told_every_five_seconds_and_asked_every_second(capsys):
    lines, looks = told(capsys, {"scribe:1"}, [100 + number / 5 for number in range(40)])
    assert looks == 8
    assert [line.split()[2] for line in lines] == ["150.0", "650.0"]


def test_a_job_whose_models_are_there_asks_nobody(capsys):
    assert told(capsys, set(), (100.0, 101.0, 110.0)) == ([], 0)
