def test_x(hostile, tmp_path):
    from resfit import report
    print(report(hostile.folder, "/tmp/report-h.html"))
