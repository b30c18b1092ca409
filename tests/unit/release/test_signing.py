from __future__ import annotations

import multiprocessing
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from genai_operators.exceptions import ConfigurationError, ManifestMismatch, SignatureInvalid, UnsafeWeights
from genai_operators.release import signing
from genai_operators.release.verification import (
    MODEL_FOLDER,
    SIGNATURE_NAME,
    read_manifest,
    verify_package,
    write_manifest,
)
from genai_operators.store import directory_manifest
from tests.fakes.packages import Keys, make_keys, make_package, safetensors_bytes


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def package(tmp_path: Path, keys: Keys) -> Path:
    return make_package(tmp_path / "package", keys=keys)


def verify(package: Path, keys: Keys, digest: str = ""):
    digest = digest or read_manifest(package / MODEL_FOLDER).digest
    return verify_package(package, trusted_keys=keys.trusted_keys, digest=digest)


class TestKeyOnFirstUse:
    def test_private_key_is_for_its_owner_only_and_its_public_half_is_trusted(self, keys):
        assert stat.S_IMODE(keys.private_key.stat().st_mode) == 0o600
        assert len(signing.trusted(keys.trusted_keys)) == 1

    def test_processes_that_race_end_with_one_key_and_one_trusted_key(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        folder = tmp_path / "race"
        racers = [context.Process(target=make_keys, args=(folder,)) for _ in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert [racer.exitcode for racer in racers] == [0] * 4
        assert [path.name for path in (folder / "private").iterdir()] == ["key.pem"]
        assert len(list((folder / "trusted").iterdir())) == 1
        make_package(tmp_path / "package", keys=Keys(folder / "private" / "key.pem", folder / "trusted"))

    def test_a_key_that_others_can_read_is_refused(self, keys):
        keys.private_key.chmod(0o644)
        with pytest.raises(ConfigurationError, match="chmod 600"):
            make_keys(keys.private_key.parent.parent)

    def test_a_public_key_that_was_taken_away_stays_away(self, keys, tmp_path):
        for path in keys.trusted_keys.iterdir():
            path.unlink()
        with pytest.raises(ConfigurationError, match="not among the trusted keys"):
            make_package(tmp_path / "package", keys=keys)
        assert not list(keys.trusted_keys.iterdir())


class TestWhatIsNotServed:
    def test_an_untouched_package_is(self, package, keys):
        verified = verify(package, keys)
        assert verified.directory == package / MODEL_FOLDER
        assert verified.key in signing.trusted(keys.trusted_keys)

    def test_an_edited_file(self, package, keys):
        (package / MODEL_FOLDER / "config.json").write_text("{}")
        with pytest.raises(ManifestMismatch, match=r"config\.json does not match"):
            verify(package, keys)

    def test_an_extra_file(self, package, keys):
        (package / MODEL_FOLDER / "extra.json").write_text("{}")
        with pytest.raises(ManifestMismatch, match=r"extra\.json is not in the manifest"):
            verify(package, keys)

    def test_a_missing_file(self, package, keys):
        (package / MODEL_FOLDER / "tokenizer" / "tokenizer.json").unlink()
        with pytest.raises(ManifestMismatch, match=r"tokenizer/tokenizer\.json is missing"):
            verify(package, keys)

    @pytest.mark.parametrize("name", ["config.json", ".gitattributes", ".git/config"])
    def test_files_changed_together_with_their_manifest(self, package, keys, name):
        model = package / MODEL_FOLDER
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("changed")
        write_manifest(model, directory_manifest(model))
        with pytest.raises(ManifestMismatch, match=r"is not what was signed.*MANIFEST\.json"):
            verify(package, keys)

    def test_a_file_that_version_control_owns(self, package, keys):
        model, signature = package / MODEL_FOLDER, package / SIGNATURE_NAME
        (model / ".gitattributes").write_text("added")
        with pytest.raises(ManifestMismatch, match=r"Extra files .*\.gitattributes"):
            signing.verify(model, signature, trusted_keys=keys.trusted_keys)

    def test_another_model_with_a_good_signature(self, package, keys, tmp_path):
        other = make_package(tmp_path / "other", keys=keys, content="second")
        with pytest.raises(ManifestMismatch, match="another model than was asked for"):
            verify(other, keys, digest=read_manifest(package / MODEL_FOLDER).digest)

    def test_a_signature_of_another_model(self, package, keys, tmp_path):
        other = make_package(tmp_path / "other", keys=keys, content="second")
        (other / SIGNATURE_NAME).replace(package / SIGNATURE_NAME)
        with pytest.raises(ManifestMismatch, match="not what was signed"):
            verify(package, keys)

    def test_an_unknown_key(self, package, tmp_path):
        with pytest.raises(SignatureInvalid, match="not among the 1 trusted keys"):
            verify(package, make_keys(tmp_path / "strangers"))

    def test_a_forged_hint(self, package, keys, tmp_path):
        strangers = make_keys(tmp_path / "strangers")
        signature = package / SIGNATURE_NAME
        mine, theirs = (next(iter(signing.trusted(k.trusted_keys))) for k in (keys, strangers))
        signature.write_text(signature.read_text().replace(mine, theirs))
        with pytest.raises(SignatureInvalid, match="does not verify"):
            verify(package, strangers)

    def test_no_signature(self, package, keys):
        (package / SIGNATURE_NAME).unlink()
        with pytest.raises(SignatureInvalid, match="not signed"):
            verify(package, keys)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"verificationMaterial": {"publicKey": {"hint": 3}}}'])
    def test_a_broken_signature(self, package, keys, text):
        (package / SIGNATURE_NAME).write_text(text)
        with pytest.raises(SignatureInvalid):
            verify(package, keys)

    def test_without_a_trusted_key(self, package, tmp_path):
        with pytest.raises(ConfigurationError, match="no trusted keys"):
            verify(package, Keys(tmp_path / "none", tmp_path / "none"))

    def test_an_emptied_directory(self, package, keys):
        digest = read_manifest(package / MODEL_FOLDER).digest
        for path in sorted((package / MODEL_FOLDER).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        with pytest.raises(UnsafeWeights, match=r"holds no \.safetensors"):
            verify(package, keys, digest)


class TestUnsafeWeights:
    @pytest.mark.parametrize(
        ("name", "data", "reason"),
        [
            ("pytorch_model.bin", b"anything", "can run code"),
            ("modeling_custom.py", b"print()", "can run code"),
            ("weights.dat", b"\x80\x04\x95", "is a pickle"),
            ("weights.npz", b"PK\x03\x04..", "is a zip archive"),
            ("second.safetensors", b"\x80\x04\x95 a pickle in disguise", "named safetensors but is not"),
        ],
    )
    def test_are_refused_by_name_and_by_content(self, package, keys, name, data, reason):
        (package / MODEL_FOLDER / name).write_bytes(data)
        with pytest.raises(UnsafeWeights, match=rf"{name} .*{reason}"):
            verify(package, keys)

    def test_a_link_is_refused(self, package, keys):
        (package / MODEL_FOLDER / "link.safetensors").symlink_to(package / MODEL_FOLDER / "model.safetensors")
        with pytest.raises(UnsafeWeights, match="symbolic link"):
            verify(package, keys)

    def test_a_link_to_a_folder_is_refused(self, package, keys, tmp_path):
        (package / MODEL_FOLDER / "code").symlink_to(tmp_path, target_is_directory=True)
        with pytest.raises(UnsafeWeights, match="code is a symbolic link"):
            verify(package, keys)

    def test_several_safetensors_files_are_fine(self, tmp_path, keys):
        package = make_package(tmp_path / "sharded", keys=keys)
        (package / MODEL_FOLDER / "model-2.safetensors").write_bytes(safetensors_bytes(b"more"))
        write_manifest(package / MODEL_FOLDER, directory_manifest(package / MODEL_FOLDER))
        sign = {"private_key": keys.private_key, "trusted_keys": keys.trusted_keys}
        signing.sign(package / MODEL_FOLDER, package / SIGNATURE_NAME, **sign)
        verify(package, keys)


class TestRotation:
    def test_old_and_new_keys_verify_side_by_side_until_the_old_one_is_taken_away(self, package, keys, tmp_path):
        old = next(iter(signing.trusted(keys.trusted_keys).values()))
        rotated = Keys(private_key=tmp_path / "new.pem", trusted_keys=keys.trusted_keys)
        new = make_package(tmp_path / "new", keys=rotated, content="second")
        verify(package, keys)
        verify(new, keys)
        old.unlink()
        verify(new, keys)
        with pytest.raises(SignatureInvalid):
            verify(package, keys)


class TestStandardTool:
    def test_the_model_signing_command_verifies_the_bundle(self, package, keys):
        public = next(iter(signing.trusted(keys.trusted_keys).values()))
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(package / MODEL_FOLDER)]
        command += ["--signature", str(package / SIGNATURE_NAME), "--public_key", str(public)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
