"""Two populations in one folder: the second is refused, and nothing of the first is lost."""

import pytest

from tests.population.families import trained


def test_a_folder_belongs_to_one_population_at_a_time(tmp_path):
    refused = []

    def on_chunk(done, _):
        if not refused:
            with pytest.raises(ValueError, match="in use by another run"):
                trained(strategy="map", chunk=2, directory=tmp_path)
            refused.append(done)

    found = trained(strategy="map", chunk=2, directory=tmp_path, on_chunk=on_chunk)
    assert len(refused) == 1
    again = trained(strategy="map", chunk=2, directory=tmp_path)  # all of it is read
    assert (again.loss == found.loss).all()
    assert (again.seconds == found.seconds).all()
