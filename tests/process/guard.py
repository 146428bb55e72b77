"""Refuse, in the pools of tests, what is imported after the first fork, and note it.

Its text is run as sitecustomize. An upgrade takes the files of the program away, or replaces them
by those of another version, so that whatever a pool may need is loaded before it says it is ready.
"""

GUARD = """
import os, sys

class _Late:
    def find_spec(self, name, path=None, target=None):
        fd = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        frame, names = sys._getframe(1), []
        while frame is not None:
            if "importlib" not in frame.f_code.co_filename:
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        os.write(fd, (name + ", by " + " < ".join(names[:5]) + "\\n").encode())
        os.close(fd)
        raise ModuleNotFoundError("imported late: " + name, name=name)

def _begin():
    if "queuectl.worker.pool" in sys.modules and not isinstance(sys.meta_path[0], _Late):
        sys.meta_path.insert(0, _Late())

os.register_at_fork(before=_begin)
"""
