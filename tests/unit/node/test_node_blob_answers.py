"""Commands about blobs, as the control socket hands them over."""

from types import SimpleNamespace

import pytest
import trio

from dimnode.errors import Refused
from dimnode.limits import LIMITS
from dimnode.node.blob_answers import BlobAnswers
from dimnode.node.content import Content
from dimnode.store.blobs import BlobStore
from dimnode.store.home import prepare_home


@pytest.mark.parametrize("path", ["a\0b", "", "/", "/nowhere"])
def test_what_names_no_file_is_refused_and_ends_no_node(tmp_path, path):
    prepare_home(tmp_path)
    with BlobStore(tmp_path, 1 << 30) as store:
        answers = BlobAnswers(SimpleNamespace(content=Content(store, LIMITS), models=None), None)
        with pytest.raises(Refused, match="E-store-3"):
            trio.run(answers.operations["blobs.add"], {"path": path})
