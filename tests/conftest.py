"""Settings of every test."""

import hypothesis

hypothesis.settings.register_profile("viter", deadline=None)  # speed is never a pass mark: the machine may be busy
hypothesis.settings.load_profile("viter")
