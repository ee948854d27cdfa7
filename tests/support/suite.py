"""The closing line of a suite made of unittest cases."""
import sys
import unittest


def run_suite(*modules):
    """Runs the cases of the modules and says the counts as tests/README.md wants them; gives the exit status."""
    tests = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromModule(module) for module in modules)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    passed = max(result.testsRun - failed - skipped, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 0 if failed == 0 and passed + skipped > 0 else 1
