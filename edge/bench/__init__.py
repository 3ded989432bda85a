"""The instruments: what a model on this machine reaches, beside what the machine's disk and memory would allow."""
